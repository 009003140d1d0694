"""The HTTP door: the page, the tiles, and an API; nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from tilemapper import __version__
from tilemapper.errors import DeviceError, ModelError, TilemapperError
from tilemapper.serve.limits import BusyError, Dropped, GoneError, TooLargeError
from tilemapper.serve.service import Service
from tilemapper.serve.tiles import PREPARING, SOURCE
from tilemapper.serve.turns import Turns
from tilemapper.serve.uploads import Uploads, plain_name

PAGE = Path(__file__).with_name("page")
_PAGE_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (GoneError, 404),
    (BusyError, 503),
    (TooLargeError, 413),
    (ModelError, 500),
    (DeviceError, 500),
)
_DRAINED_BYTES = 64 * 2**20


class SceneWanted(BaseModel):
    """A raster in an allowed folder: the folder's number, and a path below it."""

    folder: int
    path: str = Field(max_length=4096)


class JobWanted(BaseModel):
    """A whole map to be rendered."""

    scene: str
    model: str


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
    )
    # What waits for the generator must not hold up what is only read.
    painting = Turns(8, service.limits.waiting)
    reading = Turns(4, service.limits.waiting)

    @app.get("/api/status", tags=["rasters"])
    def status() -> dict[str, Any]:
        """What the server holds and does now."""
        return service.status() | {"requests": painting.inside + reading.inside}

    app.add_exception_handler(TilemapperError, _say)
    app.add_exception_handler(Dropped, _nobody)
    app.add_exception_handler(ClientDisconnect, _nobody)
    _add_page(app)
    _add_tiles(app, service, painting, reading)
    _add_scenes(app, service, reading)
    _add_uploads(app, service, reading)
    _add_jobs(app, service, reading)
    return app


async def _say(_request: Request, error: Exception) -> Response:
    """An error as ``{"error": line}``, with the status that fits it."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 422)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, BusyError) else None
    return JSONResponse({"error": " ".join(str(error).split())}, status, headers)


async def _nobody(_request: Request, _error: Exception) -> Response:
    """What is sent when the browser has gone: nobody reads it."""
    return Response(status_code=499)


def _add_page(app: FastAPI) -> None:
    files = {path.name: path.read_bytes() for path in PAGE.iterdir()}

    def answer(name: str) -> Response:
        kind = _PAGE_TYPES[name.rpartition(".")[2]]
        headers = {"Cache-Control": "no-cache"}
        return Response(files[name], media_type=kind, headers=headers)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return answer("index.html")

    @app.get("/api", include_in_schema=False)
    async def api_page() -> Response:
        return answer("api.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        if name not in files:
            raise GoneError(f"{name}: no such file")
        return answer(name)


def _add_tiles(app: FastAPI, service: Service, painting: Turns, reading: Turns) -> None:
    tile_answers: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/png": {}}},
        204: {"description": "No picture: X-Tilemapper-Note says zoom-in or preparing."},
        503: {"description": "Too much to do; Retry-After says when to come again."},
    }

    async def answer(
        request: Request, scene: str, layer: str, z: int, x: int, y: int, partial: bool = False
    ) -> Response:
        turns = reading if layer == SOURCE else painting
        tile = await turns.run(
            lambda gone: service.tiles.tile(scene, layer, z, x, y, gone), request.is_disconnected
        )
        headers = {"Cache-Control": "no-cache"}
        if tile.note:
            headers["X-Tilemapper-Note"] = tile.note
        if tile.note == PREPARING:
            headers["Retry-After"] = "1"
        if tile.png is None or (tile.note and not partial):
            return Response(status_code=204, headers=headers)
        return Response(tile.png, media_type="image/png", headers=headers)

    @app.get(
        "/xyz/{scene}/{layer}/{z}/{x}/{y}.png",
        tags=["tiles"],
        responses=tile_answers,
        response_class=Response,
    )
    async def tile(
        request: Request, scene: str, layer: str, z: int, x: int, y: int, partial: bool = False
    ) -> Response:
        """An XYZ tile of 256 px: of the raster (layer `source`), or of its map by a model.

        With `partial`, what there is of a preview in the making is sent, and `Retry-After`.
        """
        return await answer(request, scene, layer, z, x, y, partial)

    @app.get("/{z}/{x}/{y}.png", tags=["tiles"], responses=tile_answers, response_class=Response)
    async def first_tile(request: Request, z: int, x: int, y: int) -> Response:
        """An XYZ tile of the map of the first raster by the first model."""
        scenes = service.scenes.all()
        if not scenes:
            raise GoneError("no raster is open; give one to `tilemapper serve`")
        return await answer(request, scenes[0].id, next(iter(service.models)), z, x, y)


def _add_scenes(app: FastAPI, service: Service, turns: Turns) -> None:
    @app.get("/api/config", tags=["rasters"])
    def config() -> dict[str, Any]:
        """Models, folders, open rasters and limits."""
        limits = service.limits
        return {
            "version": __version__,
            "models": [_model_json(name, service) for name in service.models],
            "folders": [root.name or str(root) for root in service.folders.roots],
            "scenes": [scene.to_json() for scene in service.scenes.all()],
            "upload_bytes": limits.upload_bytes,
            "upload_pixels": limits.upload_pixels,
        }

    @app.get("/api/folders/{folder}", tags=["rasters"])
    def listing(folder: int, path: str = "") -> dict[str, Any]:
        """Folders and rasters in an allowed folder, or in one below it."""
        return service.folders.listed(folder, path, service.limits.listed)

    @app.post("/api/scenes", tags=["rasters"])
    async def open_scene(request: Request, wanted: SceneWanted) -> dict[str, Any]:
        """Opens a raster in an allowed folder."""

        def work(_gone: object) -> dict[str, Any]:
            path = service.folders.path(wanted.folder, wanted.path)
            if not path.is_file():
                raise GoneError(f"{wanted.path}: is no file")
            return service.scenes.open(path, name=Path(wanted.path).name).to_json()

        return await turns.run(work, request.is_disconnected)

    @app.get("/api/scenes/{scene}/maps/{model}", tags=["rasters"])
    async def scene_map(request: Request, scene: str, model: str) -> dict[str, Any]:
        """What a model would make of a raster: size, zooms that are rendered live, tiles."""
        return await turns.run(
            lambda _gone: service.map_json(service.scenes.get(scene), model),
            request.is_disconnected,
        )

    @app.delete("/api/scenes/{scene}", tags=["rasters"], status_code=204)
    def close_scene(scene: str) -> None:
        """Closes a raster; an upload is removed with all that was made of it."""
        service.scenes.remove(scene)


def _add_uploads(app: FastAPI, service: Service, turns: Turns) -> None:
    uploads = Uploads(service.folder, service.limits)

    @app.post(
        "/api/uploads",
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


def _add_jobs(app: FastAPI, service: Service, turns: Turns) -> None:
    @app.post("/api/jobs", tags=["downloads"])
    async def start(request: Request, wanted: JobWanted) -> dict[str, Any]:
        """Renders a whole map in the background; the same one is rendered once."""
        scene, model = service.scenes.get(wanted.scene), service.tiles.model(wanted.model)
        return service.jobs.start(scene, model).to_json()

    @app.get("/api/jobs", tags=["downloads"])
    def jobs() -> list[dict[str, Any]]:
        """All jobs, oldest first."""
        return [job.to_json() for job in service.jobs.all()]

    @app.get("/api/jobs/{job}", tags=["downloads"])
    def progress(job: int) -> dict[str, Any]:
        """How far a job is."""
        return service.jobs.get(job).to_json()

    @app.delete("/api/jobs/{job}", tags=["downloads"], status_code=204)
    def cancel(job: int) -> None:
        """Ends a job, and removes its map."""
        service.jobs.cancel(job)

    @app.get("/api/jobs/{job}/map.{kind}", tags=["downloads"], response_class=FileResponse)
    async def download(request: Request, job: int, kind: str) -> Response:
        """A finished map: `map.tif` is a cloud-optimised GeoTIFF, `map.png` a picture."""
        path, made = await turns.run(
            lambda _gone: service.download(job, kind), request.is_disconnected
        )
        media_type = "image/png" if kind == "png" else "image/tiff"
        return FileResponse(path, filename=made.file_name(kind), media_type=media_type)


def _model_json(name: str, service: Service) -> dict[str, Any]:
    card = service.models[name].card
    return {
        "name": name,
        "gsd_m": card.gsd_m,
        "direction": card.direction,
        "classes": [[entry.name, list(entry.colour)] for entry in card.palette],
    }
