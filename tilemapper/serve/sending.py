"""A file as an answer, which is sent whole even if it is removed meanwhile."""

from __future__ import annotations

from typing import Any, BinaryIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class OpenFileResponse(FileResponse):
    """Sends a file that is open already, ranges and all, and closes it.

    Starlette opens a file by its name after it has sent the headers: one that was removed since
    would be an answer that breaks off. ``/dev/fd`` gives a name to what is open.
    """

    def __init__(self, file: BinaryIO, **options: Any) -> None:
        self._file = file
        super().__init__(f"/dev/fd/{file.fileno()}", **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        with self._file:
            await super().__call__(scope, receive, send)
