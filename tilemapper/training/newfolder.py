"""A folder of many files that is filled by one run, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tilemapper.errors import LockedError, TargetError, TilemapperError
from tilemapper.raster.atomic import check_name, fsync_folder, is_at, make_folder, writing_failed

PART = ".part"


def check_new(out: Path, names: Sequence[str]) -> None:
    """Refuses a folder that holds something else than what a killed run of ours has left.

    Raises:
        TargetError: it does, or is a file.
    """
    check_name(out)
    if not os.path.lexists(out):
        return
    try:
        found = {path.name for path in out.iterdir()} if out.is_dir() else {"a file"}
    except FileNotFoundError:
        return  # another run has failed, and took the folder with it
    except OSError as error:
        raise writing_failed(out, error) from error
    if found - {PART} and not (PART in found and found <= {PART, *names}):
        raise _in_use(out)


@contextlib.contextmanager
def new_folder(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields a folder to fill, ``OUT/.part``; what is in it moves to ``out`` at the end.

    Inside, since ``out`` may be a mounted volume, whose parent is another file system. What a
    killed run left is thrown away: the run begins anew.

    Args:
        out: a folder as `check_new` wants it.
        names: all that may lie in the folder, in the order in which it moves.

    Raises:
        TargetError, DiskFullError: it cannot be made, or is in use.
        LockedError: another run is filling it.
    """
    is_new = not out.exists()
    try:
        with _held(out, names) as part:
            try:
                yield part
                for path in (part / name for name in names):
                    if path.is_dir():
                        fsync_folder(path)
                for name in names:
                    if (part / name).exists():
                        (part / name).rename(out / name)
                fsync_folder(out)
                part.rmdir()
            except BaseException:
                with contextlib.suppress(OSError):
                    _clear(out, names)
                    part.rmdir()
                    if is_new:
                        out.rmdir()
                raise
    except OSError as error:
        # Our own errors, and those of a reader, are OSErrors too.
        if isinstance(error, TilemapperError) or error.errno is None:
            raise
        raise writing_failed(out, error) from error


@contextlib.contextmanager
def _held(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Makes the empty part, held against other runs."""
    at_work = LockedError(f"{out}: another run is filling it; wait for it")
    make_folder(out)
    try:
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:  # another run has failed, and took the folder with it
        raise at_work from error
    try:
        with contextlib.suppress(OSError):  # a file system that locks no folders
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise at_work from error
        if not is_at(descriptor, out):
            raise at_work
        check_new(out, names)  # another run may have ended since
        (out / PART).mkdir(exist_ok=True)  # it may be there of a killed run
        _clear(out, names)
        yield out / PART
    finally:
        os.close(descriptor)


def _clear(out: Path, names: Sequence[str]) -> None:
    """Removes what was written so far."""
    for path in [*(out / name for name in names), *(out / PART).iterdir()]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _in_use(out: Path) -> TargetError:
    return TargetError(f"{out}: is in use, a new or empty folder is needed; choose another")
