"""Bodies of requests: but for uploads all are read into memory as a whole, and must be small."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from tilemapper.serve.guard import App, Receive, Scope, Send

MOST_BYTES = 64 * 1024  # the longest that is asked for is a path of 4096 letters


class SmallBodies:
    """Refuses a body as soon as it is too long.

    Args:
        app: what reads it.
        large: the path whose bodies may be of any size.
    """

    def __init__(self, app: App, large: str) -> None:
        self._app, self._large = app, large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] == self._large:
            await self._app(scope, receive, send)
            return
        size = 0

        async def receive_little() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BYTES:
                raise HTTPException(413, f"the request has more than {MOST_BYTES // 1024} KiB")
            return message

        await self._app(scope, receive_little, send)
