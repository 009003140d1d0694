"""What a map of the world cannot show in one piece: the date line, and the poles."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from tilemapper.raster.geometry import to_ground
from tilemapper.raster.opening import GDAL_ERRORS
from tilemapper.raster.spec import SourceSpec

_DEGREES = CRS.from_epsg(4326)


def span(edges: NDArray[np.float64]) -> tuple[float, float]:
    """Left and right end of a rim, where the world goes from 0 to 1.

    Beyond 1 where the raster lies across the date line: it goes on at the world's other side.

    Args:
        edges: places along each side of the rim, (sides, places).
    """
    if not (np.abs(np.diff(edges, axis=1)) > 0.5).any():
        return float(edges.min()), float(edges.max())
    onwards = np.where(edges < 0.5, edges + 1, edges)
    left, right = float(onwards.min()), float(onwards.max())
    return (left, right) if right - left < 0.5 else (0.0, 1.0)


def holds_a_pole(spec: SourceSpec) -> bool:
    """Whether a pole lies within the raster: Web Mercator has it infinitely far away."""
    crs, inverse = CRS.from_wkt(spec.crs_wkt), ~Affine(*spec.transform)
    for latitude in (-90.0, 90.0):
        try:
            xs, ys = transform_points(_DEGREES, crs, [0.0], [latitude])[:2]
        except GDAL_ERRORS:
            continue
        col = inverse.a * xs[0] + inverse.b * ys[0] + inverse.c
        row = inverse.d * xs[0] + inverse.e * ys[0] + inverse.f
        if 0 <= row <= spec.height and 0 <= col <= spec.width:
            return True
    return False


def counted_as(spec: SourceSpec, longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes as the raster counts them: from 0 to 360 perhaps, or beyond the date line.

    Those within half a turn of its middle stay what they are to the last bit; so do the eastings
    of a raster whose CRS has no longitudes.
    """
    crs = CRS.from_wkt(spec.crs_wkt)
    if not crs.is_geographic:
        return longitudes
    turn = 2 * math.pi / crs.units_factor[1] if crs.units_factor else 360.0
    middle, _ = to_ground(Affine(*spec.transform), row=spec.height / 2, col=spec.width / 2)
    return longitudes - turn * np.floor((longitudes - middle) / turn + 0.5)
