"""Uploads: streamed to a file under a limit, a few at once, never held in memory."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from tilemapper.errors import DiskFullError, RasterError, TargetError, TilemapperError
from tilemapper.serve.limits import BusyError, Limits, TooLargeError


class Uploads:
    """Takes the bodies of uploads; all of it runs in the server's event loop.

    Args:
        folder: for the files.
        limits: see `Limits`.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._slots = asyncio.Semaphore(limits.uploads_at_once)
        self._inside = 0
        self._number = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among the uploads at once. Raises BusyError if too many wait for one."""
        most = self._limits.uploads_at_once + self._limits.uploads_waiting
        if self._inside >= most:
            raise BusyError(f"{self._inside} uploads are under way; come again")
        self._inside += 1
        try:
            async with self._slots:
                yield
        finally:
            self._inside -= 1

    async def receive(self, body: AsyncIterator[bytes], declared: str | None) -> Path:
        """Writes a body to a new file and gives its path; leaves nothing if it fails.

        Raises:
            TooLargeError: it is, or says that it is, beyond the limit.
            RasterError: it is empty.
            BusyError: nothing came for a while.
            DiskFullError: it does not fit on the disk.
            TargetError: it cannot be written.
        """
        self._check(int(declared) if declared is not None and declared.isdigit() else 0)
        self._number += 1
        path = self._folder / f"upload-{self._number}"
        try:
            size = 0
            with path.open("xb") as file:
                while (chunk := await self._next(body)) is not None:
                    size += len(chunk)
                    self._check(size)
                    await asyncio.to_thread(file.write, chunk)
            if size == 0:
                raise RasterError("the upload is empty; send the raster's bytes as the body")
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError("the upload finds no room here; free some, or wait") from error
            if isinstance(error, OSError) and not isinstance(error, TilemapperError):
                raise TargetError(
                    f"the upload cannot be kept ({error.strerror}); see to the server's temporary "
                    "folder, and start it again"
                ) from error
            raise
        return path

    def _check(self, size: int) -> None:
        if size > self._limits.upload_bytes:
            raise TooLargeError(
                f"the upload has more than {self._limits.upload_bytes / 2**20:.0f} MiB; "
                "give large rasters to `tilemapper serve` by their path"
            )

    async def _next(self, body: AsyncIterator[bytes]) -> bytes | None:
        silence = self._limits.upload_silence_s
        try:
            return await asyncio.wait_for(anext(body, None), timeout=silence)
        except TimeoutError as error:
            raise BusyError(f"nothing came for {silence:.0f} s; send the upload again") from error


def plain_name(name: str) -> str:
    """A name of an upload that is only a name: no folder, no control characters, not long."""
    base = os.path.basename(name.replace("\\", "/"))  # noqa: PTH119 (a stranger's, no path of ours)
    return re.sub(r"[^\w. ()+-]", "_", base).strip(". ")[:80] or "upload"
