"""What the guard does with a request that the server's end meets."""

from __future__ import annotations

import asyncio

from tilemapper.serve.guard import Guard


def test_a_request_that_the_end_of_the_server_meets_is_answered():
    """Uvicorn cancels it, and would write a traceback of what comes out of it."""
    sent = []

    async def forever(scope, receive, send):
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    async def end():
        scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost")]}
        request = asyncio.create_task(Guard(forever)(scope, None, send))
        await asyncio.sleep(0.05)
        request.cancel()
        await request

    asyncio.run(end())
    assert sent[0]["status"] == 503
