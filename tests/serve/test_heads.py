"""HEAD costs what its answer does, not what the body would."""

from __future__ import annotations

import asyncio

from starlette.responses import FileResponse

from tilemapper.serve.heads import Heads


def asked(app, method):
    """The messages of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()  # whoever asks stays

    asyncio.run(app({"type": "http", "method": method, "headers": []}, receive, send))
    return sent


def test_of_a_file_that_is_asked_for_its_head_nothing_more_is_read(tmp_path):
    with (tmp_path / "map.tif").open("wb") as file:
        file.truncate(2**20)
    reading = []

    async def download(scope, receive, send):
        await FileResponse(tmp_path / "map.tif")(scope, receive, send)
        reading.append("to its end")

    got, head = asked(Heads(download), "GET"), asked(Heads(download), "HEAD")
    assert sum(len(message["body"]) for message in got[1:]) == 2**20
    assert head == [got[0], {"type": "http.response.body", "body": b""}]
    assert (b"content-length", b"1048576") in head[0]["headers"]
    assert reading == ["to its end"]
