"""Rasters: which are open, which may be, and what models would make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from tilemapper import __version__
from tilemapper.serve.limits import GoneError
from tilemapper.serve.service import Service
from tilemapper.serve.turns import Turns


class SceneWanted(BaseModel):
    """A raster in an allowed folder: the folder's number, and a path below it."""

    folder: int
    path: str = Field(max_length=4096)


def add_rasters(app: FastAPI, service: Service, turns: Turns) -> None:
    """Adds configuration, folders, and opening and closing of rasters."""

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


def _model_json(name: str, service: Service) -> dict[str, Any]:
    card = service.models[name].card
    return {
        "name": name,
        "gsd_m": card.gsd_m,
        "direction": card.direction,
        "classes": [[entry.name, list(entry.colour)] for entry in card.palette],
    }
