"""Where a raster lies on the Earth, for footprints, filters and STAC."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import transform as transform_points

from tilemapper.raster.dateline import box_of, on_the_ground
from tilemapper.raster.geometry import to_ground
from tilemapper.raster.opening import open_raster

# Straight edges of a projected raster are curves in degrees.
_EDGE_POINTS = 8
# A grid may go on beyond the Earth's turn; far beyond, what it counts are no degrees.
_MOST_DEGREES = 540


@dataclass(frozen=True)
class Place:
    """Where a raster lies: ring of (longitude, latitude), EPSG code, grid.

    ``ring`` and ``bbox`` are in degrees, across the date line as `dateline` has them.
    """

    ring: list[tuple[float, float]] | None
    bbox: tuple[float, float, float, float] | None
    epsg: int | None
    wkt: str | None
    transform: tuple[float, ...]
    bounds: tuple[float, float, float, float] | None


def place_of(path: str, allow_drivers: Sequence[str] = ()) -> Place:
    """Where a raster lies, from its header."""
    with rasterio.Env(), open_raster(path, allow_drivers=tuple(allow_drivers)) as src:
        return placed(src.height, src.width, src.transform, src.crs)


def placed(height: int, width: int, transform: Affine, crs: CRS | None) -> Place:
    """Where a grid lies; without a CRS only the grid itself is told."""
    nowhere = Place(None, None, None, None, tuple(transform)[:6], None)
    if crs is None or transform.is_identity:
        return nowhere
    steps = [index / _EDGE_POINTS for index in range(_EDGE_POINTS)]
    edge = [
        *((step, 0.0) for step in steps), *((1.0, step) for step in steps),
        *((1 - step, 1.0) for step in steps), *((0.0, 1 - step) for step in steps),
    ]  # fmt: skip
    points = [to_ground(transform, row=y * height, col=x * width) for x, y in edge]
    try:
        lons, lats = transform_points(
            crs, CRS.from_epsg(4326), [x for x, _ in points], [y for _, y in points]
        )
    except RasterioError:
        return nowhere
    ring = [(round(lon, 7), round(lat, 7)) for lon, lat in zip(lons, lats, strict=True)]
    if not all(abs(lon) <= _MOST_DEGREES and abs(lat) <= 90 for lon, lat in ring):
        return nowhere
    ring = on_the_ground([*ring, ring[0]])
    with contextlib.suppress(RasterioError):
        west, south, east, north = array_bounds(height, width, transform)
        bounds = (west, south, east, north)
        wkt = None if crs.to_epsg() else crs.to_wkt()
        return Place(
            ring=ring,
            bbox=box_of(ring),
            epsg=crs.to_epsg(),
            wkt=wkt,
            transform=tuple(transform)[:6],
            bounds=bounds,
        )
    return nowhere
