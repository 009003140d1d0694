"""XYZ tiles."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from tilemapper.serve.limits import GoneError
from tilemapper.serve.service import Service
from tilemapper.serve.tiles import PREPARING, SOURCE
from tilemapper.serve.turns import Turns


def add_tiles(app: FastAPI, service: Service, painting: Turns, reading: Turns) -> None:
    """Adds tiles: those of maps take their turn in ``painting``, others in ``reading``."""
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
