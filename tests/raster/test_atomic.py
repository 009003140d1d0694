from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tilemapper.errors import DiskFullError, TargetError
from tilemapper.raster import atomic
from tilemapper.raster.atomic import atomic_write, write_text_atomic


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as part:
            part.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync_file", "fsync_folder"])
def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch, step):
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, step, full)
    with pytest.raises(DiskFullError, match="No space left on device; free some space"):
        write_text_atomic(tmp_path / "a.txt", "x")


def test_a_missing_folder_is_a_target_error(tmp_path):
    with pytest.raises(TargetError, match="cannot be written"):
        write_text_atomic(tmp_path / "no" / "a.txt", "x")


def test_very_long_and_odd_names_work(tmp_path):
    for name in ("x" * 250, "東" * 83, "🗺" * 62, "a b\nc.tif", "ü.json"):
        write_text_atomic(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "stdout"])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, kind):
    """As root ``--csv /dev/stdout`` put the file into the place of the machine's own link."""
    target = tmp_path / "out"
    if kind == "stdout":  # which may lead to a regular file, as where the shell has sent it to one
        (tmp_path / "sent.txt").touch()
        sent = os.open(tmp_path / "sent.txt", os.O_WRONLY)
        target.symlink_to(f"/proc/self/fd/{sent}")
    else:
        os.mkfifo(tmp_path / "pipe" if kind.startswith("link") else target)
        if kind.startswith("link"):
            target.symlink_to("pipe")
    before = target.lstat().st_mode
    with pytest.raises(TargetError, match="is no regular file; choose another"):
        write_text_atomic(target, "x")
    assert target.lstat().st_mode == before
    if kind == "stdout":
        os.close(sent)


def answering(number: int):
    """fsync as of a file system that answers so for folders."""
    usual = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        usual(descriptor)

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_syncs_no_folders_can_be_written_to(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", answering(number))
    write_text_atomic(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").read_text() == "x"


def test_a_folder_that_the_disk_could_not_sync_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", answering(errno.EIO))
    with pytest.raises(TargetError, match="Input/output error"):
        write_text_atomic(tmp_path / "a.txt", "x")
