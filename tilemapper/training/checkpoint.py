"""Checkpoints: whole or not there, checked before use, the newest good one found again.

A file is a mark, the SHA-256 of what follows, and a torch archive that is read with
``weights_only``: one file, so that state and checksum cannot part.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tilemapper.errors import TilemapperError, TrainingError
from tilemapper.raster.atomic import (
    atomic_write,
    fsync_folder,
    make_folder,
    write_bytes_atomic,
    writing_failed,
)

MARK = b"tilemapper checkpoint 1\n"
_NUMBERED = re.compile(r"step_(\d+)\.ckpt")
State = dict[str, Any]


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes one file, atomically.

    Raises:
        DiskFullError: the disk is full; what stood under the name still stands.
        TargetError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    with atomic_write(path) as part, part.open("wb") as file:
        file.write(MARK)
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)


def read_checkpoint(path: Path) -> State:
    """Reads one file.

    Raises:
        TrainingError: it is missing, damaged, no checkpoint of ours, or holds more than data.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    head = len(MARK) + hashlib.sha256().digest_size
    if bytes(data[: len(MARK)]) != MARK:
        raise TrainingError(f"{path}: no checkpoint of tilemapper; name a run folder of train")
    if hashlib.sha256(data[head:]).digest() != bytes(data[len(MARK) : head]):
        raise TrainingError(f"{path}: damaged (checksum differs); remove it to use an older one")
    try:
        state = torch.load(io.BytesIO(data[head:]), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise TrainingError(f"{path}: holds more than data, refused; remove it") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path}: holds no state; remove it")
    return state


def newest_step(folder: Path) -> int:
    """The step of the newest numbered checkpoint in a folder, 0 where there is none."""
    return max(_numbered(folder), default=0)


def _numbered(folder: Path) -> dict[int, Path]:
    found = ((_NUMBERED.fullmatch(path.name), path) for path in folder.glob("step_*.ckpt"))
    return {int(match[1]): path for match, path in found if match}


class Checkpoints:
    """The folder of a run's checkpoints: ``last.ckpt``, ``best.ckpt``, ``step_N.ckpt``.

    The numbered ones are kept up to ``keep``; names share one file on disk where they can.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        make_folder(folder)

    def tidy(self) -> None:
        """Removes what a killed run has left half written; only for the run's one owner."""
        for part in self.folder.glob(".*.tmp*"):
            part.unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any], *, step: int, best: bool = False) -> Path:
        """Writes the state of ``step`` as best, if it is, then under its number and as last.

        Raises:
            DiskFullError, TargetError: it cannot be written; what was there is whole.
        """
        path = self.folder / f"step_{step:08d}.ckpt"
        if best:
            # First, since the state says that it is the best: a run killed in between goes on
            # from the one before, and finds it once more.
            write_checkpoint(self.folder / "best.ckpt", state)
            self._name(self.folder / "best.ckpt", path.name)
        else:
            write_checkpoint(path, state)
        self._name(path, "last.ckpt")
        for old in self.numbered()[max(self.keep, 1) :]:
            with contextlib.suppress(OSError):  # the next one tries again
                old.unlink(missing_ok=True)
        return path

    def numbered(self) -> list[Path]:
        """The numbered checkpoints, newest first."""
        found = _numbered(self.folder)
        return [found[step] for step in sorted(found, reverse=True)]

    def best(self) -> Path | None:
        """The best one by the held-out metric, None while there is none."""
        path = self.folder / "best.ckpt"
        return path if path.exists() else None

    def newest(self, notice: Callable[[str], None]) -> State | None:
        """The newest one that is not damaged, None when there are none at all.

        Damaged ones are passed over with a notice each.

        Raises:
            TrainingError: there are some, and all are damaged.
        """
        error: TrainingError | None = None
        for path in self._by_age():
            if error is not None:  # there is another one: the damage is no end
                notice(str(error))
            try:
                return read_checkpoint(path)
            except TrainingError as damage:
                error = damage
        if error is not None:
            raise error
        return None

    def _by_age(self) -> list[Path]:
        """All there are, newest first; of two names of one file the first.

        In a copied folder the names are files of their own: one may be whole where another is not.
        """
        numbered = self.numbered()
        named = [*numbered[:1], self.folder / "last.ckpt", *numbered[1:], self.folder / "best.ckpt"]
        files: dict[int, Path] = {}
        for path in named:
            if path.exists():
                files.setdefault(path.stat().st_ino, path)
        return list(files.values())

    def _name(self, path: Path, name: str) -> None:
        """Gives the file a second name, replacing what had it, in one step."""
        part = self.folder / f".{name}.{os.getpid()}.tmp"
        try:
            part.unlink(missing_ok=True)
            try:
                os.link(path, part)
            except OSError:  # a file system without hard links
                write_bytes_atomic(self.folder / name, path.read_bytes())
                return
            part.replace(self.folder / name)
            fsync_folder(self.folder)
        except OSError as error:
            if isinstance(error, TilemapperError):
                raise
            raise writing_failed(self.folder / name, error) from error
