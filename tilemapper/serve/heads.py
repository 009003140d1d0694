"""HEAD: what GET would answer, without its body."""

from __future__ import annotations

from tilemapper.serve.guard import App, Receive, Scope, Send


class Heads:
    """Has HEAD answered as GET; uvicorn, which keeps its own scope, leaves the body out."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
