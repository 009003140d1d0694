"""Whole maps: rendered in the background, and downloaded."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from tilemapper.serve.sending import OpenFileResponse
from tilemapper.serve.service import Service
from tilemapper.serve.turns import Turns


class JobWanted(BaseModel):
    """A whole map to be rendered."""

    scene: str
    model: str


def add_downloads(app: FastAPI, service: Service, turns: Turns) -> None:
    """Adds jobs and their files; PNGs are written in ``turns``."""

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
        file, made = await turns.run(
            lambda _gone: service.download(job, kind), request.is_disconnected
        )
        media_type = "image/png" if kind == "png" else "image/tiff"
        # A server that is started again counts its jobs from 1 again: a browser must ask anew.
        return OpenFileResponse(
            file,
            filename=made.file_name(kind),
            media_type=media_type,
            headers={"Cache-Control": "no-cache"},
        )
