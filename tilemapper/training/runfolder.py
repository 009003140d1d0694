"""The folder of a run: one process group at a time, never another run's files."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilemapper.errors import LockedError, TargetError
from tilemapper.raster.atomic import (
    check_name,
    is_at,
    make_folder,
    write_text_atomic,
    writing_failed,
)
from tilemapper.training.config import TrainingJob
from tilemapper.training.jobtext import job_text

CONFIG_NAME, CHECKPOINTS_NAME = "config.toml", "checkpoints"
# What a killed run leaves half written.
_LITTER = re.compile(r"\..+\.tmp(\.\w+)?|\.pixels\..+\.npy")


@contextmanager
def open_run(folder: Path, *, resume: bool) -> Iterator[Path]:
    """Makes the folder and holds it against other runs; one that is refused leaves no new folder.

    Raises:
        TargetError: it has a run that is not to be resumed, or none to resume, or other files.
        LockedError: another run is at work in it.
    """
    check_name(folder)
    _check(folder, resume=resume)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        lock = (folder / ".lock").open("w")
    except FileNotFoundError as error:  # another run was refused, and took its new folder away
        raise _at_work(folder) from error
    except OSError as error:
        raise writing_failed(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _at_work(folder) from error
        if not is_at(lock.fileno(), folder / ".lock"):
            raise _at_work(folder)
        _check(folder, resume=resume)  # another run may have ended since
        for path in [path for path in folder.rglob(".*") if _LITTER.fullmatch(path.name)]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(True)
        try:
            yield folder
        except Exception:
            _leave_nothing(made)
            raise


def _check(folder: Path, *, resume: bool) -> None:
    """Refuses a folder in which this run has no place. Raises TargetError."""
    started = (folder / CONFIG_NAME).exists()
    if resume and not started:
        raise TargetError(f"{folder}: no run to resume here; leave out --resume or check the path")
    if started and not resume:
        raise TargetError(f"{folder}: has a run already; --resume it or choose another folder")
    if not started and folder.exists() and (not folder.is_dir() or any(_others(folder))):
        raise TargetError(f"{folder}: holds other files; choose a new or empty folder")


def _at_work(folder: Path) -> LockedError:
    return LockedError(f"{folder}: another run is training here; wait for it")


def _leave_nothing(made: list[Path]) -> None:
    """Removes the folders that a refused call made, the run's first, where nothing lies in them."""
    if not made or any(_others(made[0])):
        return
    with suppress(OSError):  # what went wrong before is the error to tell
        shutil.rmtree(made[0])
        for path in made[1:]:
            path.rmdir()


def write_config(folder: Path, job: TrainingJob) -> None:
    """Writes the complete job; `open_run` takes it for the sign of a run."""
    write_text_atomic(folder / CONFIG_NAME, job_text(job))


def _others(folder: Path) -> Iterator[Path]:
    """What is not of a run that ended before it could write its job."""
    for path in _inside(folder):
        if path.name == ".lock" or _LITTER.fullmatch(path.name):
            continue
        if path.name == CHECKPOINTS_NAME and path.is_dir() and not _inside(path):
            continue
        yield path


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where another run has just taken it away."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
