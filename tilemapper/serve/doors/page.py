"""The page, its script and its style."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

from tilemapper.serve.limits import GoneError

PAGE = Path(__file__).parents[1] / "page"
_PAGE_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


def add_page(app: FastAPI) -> None:
    """Adds the files under ``page/``, read once."""
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
