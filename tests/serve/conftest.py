"""Services and clients that the tests talk to; rasters that lie on Web Mercator's own pixels."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from fastapi.testclient import TestClient
from PIL import Image

from tests.conftest import noise, write_raster
from tilemapper.serve.app import make_app
from tilemapper.serve.guard import Guard
from tilemapper.serve.limits import Limits
from tilemapper.serve.service import Service, Setting

HALF_WORLD_M = math.pi * 6378137.0
ZOOM = 17
FIRST = (38608, 49268)  # x, y of the tile in whose corner the aligned raster begins


def mercator_transform(zoom: int = ZOOM, first: tuple[int, int] = FIRST) -> Affine:
    """Pixels that coincide with those of XYZ tiles at a zoom, from a tile's corner on."""
    metres = 2 * HALF_WORLD_M / 256 / 2**zoom
    left = first[0] * 256 * metres - HALF_WORLD_M
    top = HALF_WORLD_M - first[1] * 256 * metres
    return Affine(metres, 0, left, 0, -metres, top)


def aligned(path: Path, height: int, width: int, *, zoom: int = ZOOM, **kw: Any) -> Path:
    pixels = noise(height, width, seed=3)
    return write_raster(path, pixels, crs="EPSG:3857", transform=mercator_transform(zoom), **kw)


def decoded(png: bytes) -> np.ndarray:
    """(height, width, 4) uint8 of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


@contextlib.contextmanager
def serving(
    *rasters: Path,
    models: Path,
    names: tuple[str, ...] = ("identity", "unet", "classes", "slow"),
    allow: tuple[Path, ...] = (),
    **limits: Any,
) -> Iterator[tuple[Service, TestClient]]:
    setting = Setting(
        rasters=rasters,
        allow=allow,
        models=tuple(str(models / name) for name in names),
        device="cpu",
        precision="fp32",
        limits=Limits(**limits),
    )
    service = Service(setting)
    app = Guard(make_app(service))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield service, client


@pytest.fixture
def serve(models, monkeypatch) -> Any:
    """`serving` with the tests' models; none of the shipped ones."""
    monkeypatch.setattr("tilemapper.serve.service.list_models", lambda: [])
    return lambda *rasters, **kw: serving(*rasters, models=models, **kw)


def mosaic(
    client: TestClient,
    layer: str,
    height: int,
    width: int,
    *,
    zoom: int = ZOOM,
    first: tuple[int, int] = FIRST,
    scene: str | None = None,
) -> np.ndarray:
    """The tiles of a raster that begins in the corner of tile ``first``, (height, width, 4)."""
    scene = scene or client.get("/api/config").json()["scenes"][0]["id"]
    rows = []
    for y in range(-(-height // 256)):
        row = []
        for x in range(-(-width // 256)):
            answer = client.get(f"/xyz/{scene}/{layer}/{zoom}/{first[0] + x}/{first[1] + y}.png")
            assert answer.status_code == 200, answer.text
            row.append(decoded(answer.content))
        rows.append(np.concatenate(row, axis=1))
    whole = np.concatenate(rows)
    assert not whole[height:].any()
    assert not whole[:, width:].any()
    return whole[:height, :width]
