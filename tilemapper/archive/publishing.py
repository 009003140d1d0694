"""Outputs at their final place: on a disk by one rename, in a store under a temporary key first."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from functools import cached_property
from pathlib import Path

from tilemapper.archive import remote
from tilemapper.archive.job import ArchiveJob
from tilemapper.errors import TargetError
from tilemapper.raster.atomic import atomic_write, fsync_folder, writing_failed


class Outputs:
    """The outputs of a job, wherever they are. A stamp tells cheaply whether one was altered."""

    def __init__(self, job: ArchiveJob) -> None:
        self._job = job

    @cached_property
    def _store(self) -> dict[str, str]:
        """Stamps of all objects under the outputs' prefix: one listing instead of many heads."""
        prefix = self._job.output.template.partition("{")[0].rpartition("/")[0] + "/"
        return {e.url: f"{e.size_bytes}:{e.etag}" for e in remote.listed(prefix)}

    def check(self) -> None:
        """Looks at the store, if there is one, before any work is done for it.

        Raises:
            JobError: it is not there, or refuses.
        """
        if self._job.output.is_remote:
            len(self._store)

    def stamp(self, output: str) -> str | None:
        """Size and times of an output on a disk, size and ETag in a store; None if missing."""
        if remote.is_remote(output):
            return self._store.get(output)
        return stamp_of(output)

    def sha256(self, output: str) -> str | None:
        """sha256 of an output's bytes as they are now; None if it is missing.

        In a store it is what was noted beside the bytes when they were put there.
        """
        try:
            if remote.is_remote(output):
                return _noted_sha256(output)
            with Path(output).open("rb") as file:
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


def check_free(output: str, *, known: bool, overwrite: bool) -> None:
    """Refuses an output that somebody else's file stands under.

    Raises:
        TargetError: it exists, no run of the job made it, and ``overwrite`` is off.
    """
    if known or overwrite or remote.is_remote(output):
        return
    if os.path.lexists(output):
        raise TargetError(
            f"{output}: exists already and was not made by this job; move it away, or set "
            "output.overwrite = true"
        )


def prepare(output: str) -> None:
    """Makes the folder of an output.

    Raises:
        TargetError, DiskFullError: it cannot be made.
    """
    if remote.is_remote(output):
        return
    folder = Path(output).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(folder, error) from error


def put(staged: Path, output: str, sha256: str) -> str:
    """Moves a staged file to its final place, whole or not at all; returns its stamp.

    Raises:
        TargetError, DiskFullError: it cannot be put there.
    """
    if remote.is_remote(output):
        return _put_remote(output, sha256)
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


def upload(staged: Path, output: str, sha256: str) -> None:
    """Brings a staged file to its store under a temporary key, and checks that it is whole.

    Raises:
        TargetError: the store refuses, or holds something else than was sent.
    """
    bucket, key = remote.bucket_and_key(_temporary(output, sha256))
    client = remote.s3_client()
    extra = {"Metadata": {"sha256": sha256}, "ContentType": "image/tiff"}
    try:
        client.upload_file(
            str(staged), bucket, key, ExtraArgs=extra | {"ChecksumAlgorithm": "SHA256"}
        )
        head = client.head_object(Bucket=bucket, Key=key)
    except Exception as error:
        raise _refused(output, error) from None
    if head["ContentLength"] != staged.stat().st_size:
        raise TargetError(f"{output}: the store holds another size than was sent; run again")


def _put_remote(output: str, sha256: str) -> str:
    """The checked upload to its final key: one copy inside the store, which shows it whole."""
    bucket, key = remote.bucket_and_key(output)
    _, temporary = remote.bucket_and_key(_temporary(output, sha256))
    client = remote.s3_client()
    try:
        client.copy({"Bucket": bucket, "Key": temporary}, bucket, key)
        head = client.head_object(Bucket=bucket, Key=key)
        with contextlib.suppress(Exception):
            client.delete_object(Bucket=bucket, Key=temporary)
    except Exception as error:
        raise _refused(output, error) from None
    return f"{head['ContentLength']}:{head['ETag'].strip(chr(34))}"


def _temporary(output: str, sha256: str) -> str:
    folder, _, name = output.rpartition("/")
    return f"{folder}/.{name}.{sha256[:12]}.tmp"


def _noted_sha256(output: str) -> str | None:
    bucket, key = remote.bucket_and_key(output)
    try:
        head = remote.s3_client().head_object(Bucket=bucket, Key=key)
    except Exception:
        return None
    noted = head["Metadata"].get("sha256")
    return None if noted is None else str(noted)


def _refused(output: str, error: Exception) -> TargetError:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", type(error).__name__)
    return TargetError(f"{output}: the store refuses it ({code}); check rights and credentials")
