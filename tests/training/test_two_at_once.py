"""Two runs into one folder: what the other one does at the worst moment."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from tilemapper.errors import LockedError, TargetError
from tilemapper.training.newfolder import check_new, new_folder
from tilemapper.training.runfolder import CONFIG_NAME, open_run


def before_the_lock(monkeypatch, act):
    """Lets the other run act between this one's look at the folder and its lock."""
    real = fcntl.flock

    def flock(file, how):
        monkeypatch.setattr(fcntl, "flock", real)
        act()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_run_that_has_just_ended_in_the_folder_is_not_written_over(tmp_path, monkeypatch):
    run = tmp_path / "run"
    before_the_lock(monkeypatch, lambda: (run / CONFIG_NAME).write_text("of the other"))
    with pytest.raises(TargetError, match="has a run already"), open_run(run, resume=False):
        pass
    assert (run / CONFIG_NAME).read_text() == "of the other"


def test_a_folder_that_another_run_takes_away_is_not_trained_in(tmp_path, monkeypatch):
    run = tmp_path / "run"
    before_the_lock(monkeypatch, lambda: shutil.rmtree(run))
    with pytest.raises(LockedError, match="another run"), open_run(run, resume=False):
        pass


def test_pairs_that_another_run_has_just_cut_are_not_thrown_away(tmp_path, monkeypatch):
    out = tmp_path / "out"
    check_new(out, ("A", "B"))

    def ends():
        (out / "A").mkdir()
        (out / "A" / "tile.png").touch()

    before_the_lock(monkeypatch, ends)
    with pytest.raises(TargetError, match="is in use"), new_folder(out, ("A", "B")):
        pass
    assert (out / "A" / "tile.png").exists()
    assert not (out / ".part").exists()


def test_a_folder_that_another_run_takes_away_is_not_filled(tmp_path, monkeypatch):
    out = tmp_path / "out"
    before_the_lock(monkeypatch, lambda: shutil.rmtree(out))
    with pytest.raises(LockedError, match="another run"), new_folder(out, ("A",)):
        pass


def a_run(folder):
    return open_run(folder, resume=False)


def pairs(folder):
    return new_folder(folder, ("A",))


@pytest.mark.parametrize("take", [a_run, pairs])
def test_a_folder_that_can_never_be_made_is_not_to_be_waited_for(tmp_path, monkeypatch, take):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with (
        pytest.raises(TargetError, match=r"out: cannot be written \(No such file"),
        take(Path("out")),
    ):
        pass


@pytest.mark.parametrize("take", [a_run, pairs])
def test_a_folder_above_that_another_run_takes_away_is_made_again(tmp_path, monkeypatch, take):
    out, real, left = tmp_path / "runs" / "out", os.mkdir, [1]

    def mkdir(path, *arguments):
        real(path, *arguments)
        if left and Path(path) == out.parent:
            left.pop()
            out.parent.rmdir()

    monkeypatch.setattr(os, "mkdir", mkdir)
    with take(out):
        assert out.is_dir()
    assert not left
