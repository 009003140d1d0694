"""HEAD: what GET would answer, without its body."""

from __future__ import annotations

import contextlib
from collections.abc import MutableMapping
from typing import Any

from tilemapper.serve.guard import App, Receive, Scope, Send


class Heads:
    """Has HEAD answered as GET, whose body ends as soon as it begins: a map may have gigabytes."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: MutableMapping[str, Any]) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                raise _Enough

        with contextlib.suppress(_Enough):
            await self._app({**scope, "method": "GET"}, receive, send_head)


class _Enough(Exception):
    """Nothing more of a body is wanted."""
