"""Outputs at their final place: on a disk by one rename, in a store by one copy (see `storing`)."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path

from tilemapper.archive import remote, storing
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.template import prefix_of
from tilemapper.errors import TargetError
from tilemapper.raster.atomic import (
    atomic_write,
    check_name,
    fsync_folder,
    make_folder,
    writing_failed,
)


class Outputs:
    """The outputs of a job, wherever they are. A stamp tells cheaply whether one was altered."""

    def __init__(self, job: ArchiveJob) -> None:
        self._job = job

    @cached_property
    def _store(self) -> dict[str, str]:
        """Stamps of all objects under the outputs' prefixes: few listings instead of many heads."""
        prefixes = {prefix_of(t) for t in self._job.templates if remote.is_remote(t)}
        found = (entry for prefix in prefixes for entry in remote.listed(prefix))
        return {entry.url: f"{entry.size_bytes}:{entry.etag}" for entry in found}

    def check(self) -> None:
        """Looks at the store, if there is one, before any work is done for it.

        Raises:
            JobError, TryAgainError: it is not there, refuses, or does not answer.
        """
        if self._job.is_remote:
            len(self._store)

    def stamp(self, outputs: Iterable[str]) -> str | None:
        """Size and times of outputs on a disk, size and ETag in a store; None if one is missing."""
        return _joined(
            self._store.get(output) if remote.is_remote(output) else stamp_of(output)
            for output in outputs
        )

    def sha256(self, outputs: Iterable[str]) -> str | None:
        """sha256 of the bytes of outputs as they are now, one word each; None if one is missing.

        In a store it is what was noted beside the bytes when they were put there.

        Raises:
            TargetError, TryAgainError: the store refuses, or does not answer.
        """
        return _joined(
            storing.noted_sha256(output) if remote.is_remote(output) else _sha256_of(output)
            for output in outputs
        )


def _joined(words: Iterable[str | None]) -> str | None:
    """One text of several; None if one of them is."""
    found = list(words)
    known = [word for word in found if word is not None]
    return " ".join(known) if len(known) == len(found) else None


def _sha256_of(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def stamp_of(path: str) -> str | None:
    """Size, mtime and ctime of a file; None if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  100,000 of them: no Path for each
    except OSError:
        return None
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def check_free(outputs: Iterable[str], *, made: Collection[str], overwrite: bool) -> None:
    """Refuses outputs that other files stand under.

    Raises:
        TargetError: one exists that is none of those ``made`` of the scene by runs of the job, and
            ``overwrite`` is off; or none can, since its name is too long.
    """
    for output in outputs:
        if remote.is_remote(output):
            continue
        check_name(Path(output))
        if output in made or overwrite:
            continue
        if os.path.lexists(output):
            raise TargetError(
                f"{output}: exists already, and this job did not make it of this scene; move it "
                "away, or set output.overwrite = true"
            )


def check_taken(scenes: Iterable[Iterable[str]]) -> None:
    """Refuses a run that would render for nothing: none of its maps can be put where they belong.

    Args:
        scenes: the outputs of each, the map and then its layers, which may all be elsewhere.

    Raises:
        TargetError: no folder takes a file, or the store none.
        DiskFullError, TryAgainError: nothing can be put there for now.
    """
    for outputs in zip(*scenes, strict=True):
        _check_any_taken(outputs)


def _check_any_taken(outputs: Iterable[str]) -> None:
    refused = None
    for output in {output.rpartition("/")[0]: output for output in outputs}.values():
        try:
            if remote.is_remote(output):
                storing.check_taken(output)  # rights in a store seldom end at a folder
            else:
                prepare(output)
                _check_folder(Path(output).parent)
        except TargetError as error:
            if remote.is_remote(output):
                raise
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _check_folder(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise writing_failed(folder, error) from error


def prepare(output: str) -> None:
    """Makes the folder of an output.

    Raises:
        TargetError, DiskFullError: it cannot be made.
    """
    if remote.is_remote(output):
        return
    make_folder(Path(output).parent)


def put(staged: Path, output: str, sha256: str) -> str:
    """Moves a staged file to its final place, whole or not at all; returns its stamp.

    Raises:
        TargetError, DiskFullError: it cannot be put there.
        TryAgainError: its store does not answer.
    """
    if remote.is_remote(output):
        return storing.put(output, sha256)
    final = Path(output)
    try:
        try:
            staged.replace(final)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(staged, final, sha256)
        fsync_folder(final.parent)
        for suffix in (".aux.xml", ".msk", ".ovr"):
            # Of a replaced output: they would hide its own mask and overviews.
            final.with_name(final.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, TargetError) or error.errno is None:
            raise
        raise writing_failed(final, error) from error
    return stamp_of(output) or ""


def _copy(staged: Path, final: Path, sha256: str) -> None:
    with atomic_write(final) as part:
        shutil.copyfile(staged, part)
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise TargetError(f"{final}: reads back other than it was written; check the disk")
    staged.unlink()
