"""Who may talk to the server: checked for every request before anything else looks at it.

A page of another site can make a browser send requests to loopback. It cannot choose the Host
header (DNS rebinding makes it the site's own name), nor hide that it is another site.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Refuses requests under a wrong name or from another site's page; adds headers to answers.

    Args:
        app: what is guarded.
        public: whether hosts beyond loopback may be asked by their address.
        names: further host names under which the server may be asked.
    """

    def __init__(self, app: App, *, public: bool = False, names: Sequence[str] = ()) -> None:
        self._app, self._public = app, public
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        fault = self._fault(scope["method"], headers)
        if fault is not None:
            await _refuse(send, fault)
            return
        begun = False

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server ends, and is asked for no traceback
            if not begun:
                await _refuse(send, "the server is ending", 503)

    def _fault(self, method: str, headers: dict[bytes, str]) -> str | None:
        host = headers.get(b"host", "")
        if not self._is_ours(host):
            return f"host {host[:80]!r} is not this server's; use localhost, or --allow-host"
        origin = headers.get(b"origin")
        if origin is not None and _place_of(origin) != host.lower():
            return "requests of other sites' pages are not answered"
        navigates = headers.get(b"sec-fetch-mode") == "navigate" and method == "GET"
        if headers.get(b"sec-fetch-site") in ("cross-site", "same-site") and not navigates:
            return "requests of other sites' pages are not answered"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # A page's site cannot be an address of ours unless the page is ours.
        return self._public or address.is_loopback


def _place_of(origin: str) -> str | None:
    """Host and port of an origin; None if it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


async def _refuse(send: Send, message: str, status: int = 403) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
