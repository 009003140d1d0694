"""HEAD costs what its answer does, not what the body would."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from fastapi.responses import FileResponse

from tilemapper.serve.heads import Heads


def asked(app, method):
    """The messages of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": "/map.tif", "query_string": b"", "headers": [],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


def test_of_a_file_that_is_asked_for_its_head_nothing_more_is_read(tmp_path):
    with (tmp_path / "map.tif").open("wb") as file:
        file.truncate(2**20)
    app = FastAPI()
    app.add_middleware(Heads)

    @app.get("/map.tif")
    async def download() -> FileResponse:
        return FileResponse(tmp_path / "map.tif")

    got, head = asked(app, "GET"), asked(app, "HEAD")
    assert sum(len(message["body"]) for message in got[1:]) == 2**20
    assert head == [got[0], {"type": "http.response.body", "body": b""}]
    assert (b"content-length", b"1048576") in head[0]["headers"]
