from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil

import pytest
import torch

from tilemapper.errors import DiskFullError, TrainingError
from tilemapper.training.checkpoint import MARK, Checkpoints, read_checkpoint, write_checkpoint

STATE = {"step": 3, "weights": {"a": torch.arange(6.0)}, "best": None}


class Poison:
    def __reduce__(self):
        return os.mkdir, ("poisoned",)


def test_what_is_written_is_read_back(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", STATE)
    state = read_checkpoint(tmp_path / "a.ckpt")
    assert state["step"] == 3
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])


@pytest.mark.fault
def test_one_flipped_bit_anywhere_is_found(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, STATE)
    good = path.read_bytes()
    for place in range(0, len(good), 97):
        damaged = bytearray(good)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(TrainingError):
            read_checkpoint(path)


@pytest.mark.fault
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Poison()}, tmp_path / "archive")
    for payload in (pickle.dumps(Poison(), protocol=2), (tmp_path / "archive").read_bytes()):
        path = tmp_path / "a.ckpt"
        path.write_bytes(MARK + hashlib.sha256(payload).digest() + payload)
        with pytest.raises(TrainingError, match="holds more than data"):
            read_checkpoint(path)
    assert not (tmp_path / "poisoned").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 some zip", MARK])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.ckpt"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_numbered_ones_rotate_while_last_and_best_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save({**STATE, "step": step}, step=step, best=step == 1)
    assert [p.name for p in checkpoints.numbered()] == ["step_00000004.ckpt", "step_00000003.ckpt"]
    assert read_checkpoint(tmp_path / "last.ckpt")["step"] == 4
    assert read_checkpoint(checkpoints.best())["step"] == 1


@pytest.mark.fault
def test_a_damaged_newest_one_is_passed_over_with_a_notice(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save({**STATE, "step": step}, step=step)
    newest = checkpoints.numbered()[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    notices = []
    assert checkpoints.newest(notices.append)["step"] == 1
    assert len(notices) == 1 and "step_00000002.ckpt: damaged" in notices[0]
    checkpoints.numbered()[1].write_bytes(b"")
    with pytest.raises(TrainingError):
        checkpoints.newest(notices.append)


def test_in_a_copied_folder_every_name_is_a_file_to_go_on_from(tmp_path):
    made = Checkpoints(tmp_path / "made", keep=2)
    for step in (1, 2, 3):
        made.save({"step": step}, step=step, best=step == 2)
    copied = Checkpoints(shutil.copytree(tmp_path / "made", tmp_path / "copied"), keep=2)
    notices: list[str] = []
    for name, left in (
        ("step_00000003", 3), ("last", 2), ("step_00000002", 2), ("best", None)
    ):  # fmt: skip
        (copied.folder / f"{name}.ckpt").write_bytes(b"rot")
        notices.clear()
        if left is None:
            with pytest.raises(TrainingError):
                copied.newest(notices.append)
        else:
            state = copied.newest(notices.append)
            assert state is not None and state["step"] == left
            assert notices and all("no checkpoint" in line for line in notices)
    (made.folder / "step_00000003.ckpt").write_bytes(b"rot")  # which is last.ckpt too
    notices.clear()
    assert made.newest(notices.append) == {"step": 2}
    assert len(notices) == 1


def test_a_new_folder_has_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", keep=1)
    assert checkpoints.newest(print) is None and checkpoints.best() is None


@pytest.mark.fault
@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_full_disk_at_any_moment_leaves_the_last_good_one(tmp_path, monkeypatch, call):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save({**STATE, "step": 1}, step=1)

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"fsync": "os.fsync", "replace": "pathlib.Path.replace", "write": "torch.save"}[call]
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(DiskFullError if call != "write" else OSError):
            checkpoints.save({**STATE, "step": 2}, step=2)
    assert checkpoints.newest(print)["step"] == 1
    assert read_checkpoint(tmp_path / "last.ckpt")["step"] == 1


def test_what_a_kill_left_half_written_is_tidied_and_never_read(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save({**STATE, "step": 1}, step=1)
    (tmp_path / ".step_00000002.77.ab.tmp.ckpt").write_bytes(b"half")
    (tmp_path / ".last.ckpt.77.tmp").write_bytes(b"half")
    assert checkpoints.newest(print)["step"] == 1
    checkpoints.tidy()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "step_00000001.ckpt"]


def test_a_kill_between_the_names_never_leaves_a_best_state_without_its_name(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save({**STATE, "step": 1, "best": 5.0}, step=1, best=True)

    class Killed(BaseException):
        pass

    def dies(*_args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_name", dies)
        with pytest.raises(Killed):
            checkpoints.save({**STATE, "step": 2, "best": 7.0}, step=2, best=True)
    # What a resumed run takes for the best so far is what stands under that name, or older.
    newest = checkpoints.newest(print)
    assert newest["step"] == 1
    assert read_checkpoint(checkpoints.best())["best"] >= newest["best"]


@pytest.mark.parametrize(
    "call", ["os.link", "pathlib.Path.replace", "os.fsync", "pathlib.Path.unlink"]
)
def test_a_full_disk_at_any_name_is_told_in_our_words(tmp_path, monkeypatch, call):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save({**STATE, "step": 1}, step=1)
    calls = iter(range(100))
    usual = {"os.link": os.link, "os.fsync": os.fsync}.get(call) or getattr(
        type(tmp_path), call.rpartition(".")[2]
    )

    def full(*args, **more):
        # The second one: of a name, where the first was the file's own.
        if call == "os.link" or next(calls) >= 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        if call == "os.link":  # as if the file system knew no links: the bytes are copied
            checkpoints.save({**STATE, "step": 2}, step=2)
        else:
            with pytest.raises(DiskFullError, match="free some space"):
                checkpoints.save({**STATE, "step": 2}, step=2)
    assert checkpoints.newest(print)["step"] in (1, 2)


def test_a_full_disk_under_the_folder_itself_is_told_in_our_words(tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(type(tmp_path), "mkdir", full)
    with pytest.raises(DiskFullError, match="Disk quota exceeded"):
        Checkpoints(tmp_path / "checkpoints", keep=1)
