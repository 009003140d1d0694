"""The application: its doors, what errors become, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tilemapper import __version__
from tilemapper.errors import (
    DeviceError,
    DiskFullError,
    ModelError,
    ShortageError,
    TargetError,
    TilemapperError,
)
from tilemapper.serve.bodies import SmallBodies
from tilemapper.serve.doors.downloads import add_downloads
from tilemapper.serve.doors.page import add_page
from tilemapper.serve.doors.rasters import add_rasters
from tilemapper.serve.doors.tiles import add_tiles
from tilemapper.serve.doors.uploads import UPLOADS, add_uploads
from tilemapper.serve.heads import Heads
from tilemapper.serve.limits import BusyError, Dropped, GoneError, TooLargeError
from tilemapper.serve.service import Service
from tilemapper.serve.turns import Turns

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (GoneError, 404),
    (BusyError, 503),
    (ShortageError, 503),
    (TooLargeError, 413),
    (DiskFullError, 507),
    (TargetError, 500),
    (ModelError, 500),
    (DeviceError, 500),
)

# What all doors answer that cannot give what is asked for.
_FAULTS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Anything else: what is wrong, in one line.",
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"error": {"type": "string"}}}
            }
        },
    }
}


class Said(JSONResponse):
    """JSON, whatever text is in it: names on disks and in requests may be none in UTF-8."""

    def render(self, content: Any) -> bytes:
        """The body."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(errors="replace")


def make_app(service: Service) -> FastAPI:
    """The application around a service, which is closed with it."""

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        painting.close()
        reading.close()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="tilemapper serve",
        version=__version__,
        description="Rasters and their maps as XYZ tiles, rendered live.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
        default_response_class=Said,
        responses=_FAULTS,
    )
    # What waits for the generator must not hold up what is only read.
    painting = Turns(8, service.limits.waiting)
    reading = Turns(4, service.limits.waiting)

    @app.get("/api/status", tags=["rasters"])
    def status() -> dict[str, Any]:
        """What the server holds and does now."""
        return service.status() | {"requests": painting.inside + reading.inside}

    app.add_middleware(SmallBodies, large=UPLOADS)
    app.add_middleware(Heads)
    app.add_exception_handler(TilemapperError, _say)
    app.add_exception_handler(HTTPException, _say_what_is_there)
    app.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    app.add_exception_handler(Exception, _say_a_defect)
    app.add_exception_handler(Dropped, _nobody)
    app.add_exception_handler(ClientDisconnect, _nobody)
    add_page(app)
    add_tiles(app, service, painting, reading)
    add_rasters(app, service, reading)
    add_uploads(app, service, reading)
    add_downloads(app, service, reading)
    return app


async def _say(_request: Request, error: Exception) -> Response:
    """An error as ``{"error": line}``, with the status that fits it."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 422)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, BusyError) else None
    return Said({"error": " ".join(str(error).split())}, status, headers)


async def _say_what_is_there(request: Request, error: Exception) -> Response:
    """A path that is none, or one that is asked otherwise, as `_say` has it."""
    assert isinstance(error, HTTPException)
    line = f"{request.method} {request.url.path}: {error.detail.lower()}; /api says what there is"
    return Said({"error": line}, error.status_code, error.headers)


async def _say_what_is_wrong(_request: Request, error: Exception) -> Response:
    """A request that lacks something, as `_say` has it: each part, and what FastAPI says of it."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return Said({"error": f"{'; '.join(faults)}; /api says what is needed"}, 422)


async def _say_a_defect(request: Request, error: Exception) -> Response:
    """A defect of ours, as `_say` has it; its traceback goes to the terminal."""
    line = f"{request.method} {request.url.path}: {type(error).__name__}, a defect of the server"
    return Said({"error": f"{line}; its terminal says where"}, 500)


async def _nobody(_request: Request, _error: Exception) -> Response:
    """What is sent when the browser has gone: nobody reads it."""
    return Response(status_code=499)
