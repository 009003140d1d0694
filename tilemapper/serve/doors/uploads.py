"""Uploads: the body of a request becomes a raster."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import FastAPI, Request

from tilemapper.serve.limits import BusyError, TooLargeError
from tilemapper.serve.service import Service
from tilemapper.serve.turns import Turns
from tilemapper.serve.uploads import Uploads, plain_name

UPLOADS = "/api/uploads"
_DRAINED_BYTES = 64 * 2**20


def add_uploads(app: FastAPI, service: Service, turns: Turns) -> None:
    """Adds the upload; the raster is opened in ``turns``."""
    uploads = Uploads(service.folder, service.limits)

    @app.post(
        UPLOADS,
        tags=["rasters"],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"format": "binary"}}},
            }
        },
    )
    async def upload(request: Request, name: str = "upload") -> Any:
        """Opens a raster that is sent as the request's body: `curl --data-binary @city.tif`."""
        shown = plain_name(name)
        try:
            async with uploads.turn():
                path = await uploads.receive(
                    request.stream(), request.headers.get("content-length")
                )
                try:
                    scene = await turns.run(
                        lambda _gone: service.scenes.open(
                            path,
                            name=shown,
                            uploaded=True,
                            most_pixels=service.limits.upload_pixels,
                        ),
                        request.is_disconnected,
                    )
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
                return scene.to_json()
        except (BusyError, TooLargeError):
            await _drain(request)
            raise


async def _drain(request: Request) -> None:
    """Reads on for a moment: a browser that still sends would not read why it was refused."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(3):
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size > _DRAINED_BYTES:
                    return
