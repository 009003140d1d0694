"""XYZ tiles on a raster: which place of its grid each pixel of a tile shows.

Rasters with a place on earth lie in Web Mercator's tiles, as QGIS and web maps cut them. Others
have a pyramid of their own: at its deepest level a pixel of a tile is a pixel of the raster.
Both frames measure in a unit square, whose corner (0, 0) is at the top left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from tilemapper.raster.geometry import to_ground
from tilemapper.raster.opening import GDAL_ERRORS
from tilemapper.raster.spec import SourceSpec
from tilemapper.serve.dateline import counted_as, holds_a_pole, span

SIDE = 256  # pixels of an XYZ tile
DEEPEST = 30
BEYOND_NATIVE = 4  # zoom levels at which pixels are only enlarged
_HALF_WORLD_M = math.pi * 6378137.0
_MERCATOR = CRS.from_epsg(3857)
_NODES = np.arange(0, SIDE + 1, 16)  # between these, places are interpolated
_EDGE = np.linspace(0, 1, 22)

Places = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Frame:
    """Where a scene lies in its frame: ``mercator`` or ``pixels``.

    Attributes:
        bounds: left, top, right, bottom in the unit square; right is beyond 1 where the raster
            lies across the date line, and goes on at the square's left.
    """

    scheme: str
    bounds: tuple[float, float, float, float]
    height: int
    width: int

    def places(self, spec: SourceSpec, z: int, x: int, y: int) -> Places | None:
        """Row and column, (256, 256) float64 each, that the tile's pixel centres show.

        In pixels of the spec's grid, whole numbers being pixel corners; NaN where the raster's
        CRS knows no place. None if the tile lies beside the raster. The place of a pixel does not
        depend on the tile: neighbours go on where a tile ends.
        """
        size = 0.5**z
        left, top, right, bottom = self.bounds
        if not any((x + on) * size < right and (x + on + 1) * size > left for on in (0, 1 << z)):
            return None
        if not (y * size < bottom and (y + 1) * size > top):
            return None
        if self.scheme == "pixels":
            step = self._pixels_a_tile_pixel(z)
            rows = (y * SIDE + np.arange(SIDE) + 0.5) * (step / _row_step(spec))
            cols = (x * SIDE + np.arange(SIDE) + 0.5) * (step / _col_step(spec))
            return np.broadcast_arrays(rows[:, None], cols[None, :])  # type: ignore[return-value]
        return _mercator_places(spec, z, x, y)

    def step(self, spec: SourceSpec, z: int) -> float:
        """Pixels of the spec's grid that a tile's pixel spans, at the raster's centre."""
        if self.scheme == "pixels":
            return self._pixels_a_tile_pixel(z) / min(_row_step(spec), _col_step(spec))
        return _mercator_step(spec) * 2.0**-z

    def native_zoom(self, spec: SourceSpec) -> int:
        """The zoom at which a tile's pixel is about one of the spec's grid."""
        deepest = DEEPEST - BEYOND_NATIVE
        return min(deepest, max(0, math.ceil(math.log2(self.step(spec, 0)) - 0.3)))

    def _pixels_a_tile_pixel(self, z: int) -> float:
        return 2.0 ** (_levels(self.height, self.width) - z)


def frame_of(spec: SourceSpec) -> Frame:
    """The frame of a scene, from the spec of its source at its own pixels."""
    if spec.crs_wkt is not None:
        bounds = _mercator_bounds(spec)
        if bounds is not None:
            return Frame("mercator", bounds, spec.height, spec.width)
    side = SIDE * 2.0 ** _levels(spec.height, spec.width)
    return Frame("pixels", (0, 0, spec.width / side, spec.height / side), spec.height, spec.width)


def _levels(height: int, width: int) -> int:
    return max(0, math.ceil(math.log2(max(height, width) / SIDE)))


def _row_step(spec: SourceSpec) -> float:
    return spec.warp.row_step if spec.warp else 1.0


def _col_step(spec: SourceSpec) -> float:
    return spec.warp.col_step if spec.warp else 1.0


def _mercator_bounds(spec: SourceSpec) -> tuple[float, float, float, float] | None:
    """The raster's box in the unit square; None where Web Mercator cannot show all of it."""
    transform = Affine(*spec.transform)
    rim = [(t, 0.0) for t in _EDGE] + [(t, 1.0) for t in _EDGE]
    rim += [(0.0, t) for t in _EDGE] + [(1.0, t) for t in _EDGE]
    ends = [to_ground(transform, row=r * spec.height, col=c * spec.width) for r, c in rim]
    try:
        xs, ys = _to_mercator(spec, [x for x, _ in ends], [y for _, y in ends])
    except GDAL_ERRORS:
        return None
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        return None
    if max(np.abs(xs).max(), np.abs(ys).max()) > _HALF_WORLD_M * (1 + 1e-9):
        return None
    if holds_a_pole(spec):
        return None
    left, right = span((0.5 + xs / (2 * _HALF_WORLD_M)).reshape(4, -1))
    top, bottom = (0.5 - float(value) / (2 * _HALF_WORLD_M) for value in (ys.max(), ys.min()))
    return left, top, right, bottom


def _to_mercator(
    spec: SourceSpec, xs: list[float], ys: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    crs = CRS.from_wkt(spec.crs_wkt)
    if crs != _MERCATOR:
        xs, ys = transform_points(crs, _MERCATOR, xs, ys)[:2]
    return np.asarray(xs), np.asarray(ys)


def _mercator_step(spec: SourceSpec) -> float:
    """Pixels of the grid that a tile's pixel at zoom 0 would span, as at the raster's centre."""
    row, col = spec.height / 2, spec.width / 2
    transform = Affine(*spec.transform)
    ends = [(row - 0.5, col), (row + 0.5, col), (row, col - 0.5), (row, col + 0.5)]
    ground = [to_ground(transform, row=r, col=c) for r, c in ends]
    xs, ys = _to_mercator(spec, [x for x, _ in ground], [y for _, y in ground])
    down = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
    across = math.hypot(xs[3] - xs[2], ys[3] - ys[2])
    return 2 * _HALF_WORLD_M / SIDE / min(down, across)


def _mercator_places(spec: SourceSpec, z: int, x: int, y: int) -> Places:
    metres = 2 * _HALF_WORLD_M / SIDE * 0.5**z  # that a tile's pixel spans
    inverse = ~Affine(*spec.transform)
    crs = CRS.from_wkt(spec.crs_wkt)
    if crs == _MERCATOR:  # by arithmetic alone: pixels that coincide do so exactly
        east = (x * SIDE + np.arange(SIDE) + 0.5) * metres - _HALF_WORLD_M
        north = _HALF_WORLD_M - (y * SIDE + np.arange(SIDE) + 0.5) * metres
        return _pixels(inverse, *np.meshgrid(east, north))
    east = (x * SIDE + _NODES) * metres - _HALF_WORLD_M
    north = _HALF_WORLD_M - (y * SIDE + _NODES) * metres
    xs, ys = np.meshgrid(east, north)
    # Columns one after the other: what a projection does not know lies together then.
    found = _from_mercator(crs, np.stack([xs.T.ravel(), ys.T.ravel()]))
    ground = found.reshape(2, *xs.T.shape).transpose(0, 2, 1)
    # Turned after what lies between is known: no tile's pixels are torn apart where 360 is 0.
    easts, norths = _between_nodes(ground[0]), _between_nodes(ground[1])
    return _pixels(inverse, counted_as(spec, easts), norths)


def _from_mercator(crs: CRS, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of Web Mercator, (2, n), in another CRS; NaN where it knows no such place.

    GDAL refuses a whole call for one point of which it knows none, as most projections do of a
    place on the other side of the earth: such a call is halved until the rest is told.
    """
    try:
        found = transform_points(_MERCATOR, crs, points[0].tolist(), points[1].tolist())[:2]
    except GDAL_ERRORS:
        count = points.shape[1]
        if count == 1:
            return np.full((2, 1), np.nan)
        halves = points[:, : count // 2], points[:, count // 2 :]
        return np.concatenate([_from_mercator(crs, half) for half in halves], axis=1)
    ground = np.asarray(found)
    return np.where(np.isfinite(ground).all(axis=0), ground, np.nan)


def _pixels(inverse: Affine, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Places:
    cols = inverse.a * xs + inverse.b * ys + inverse.c
    rows = inverse.d * xs + inverse.e * ys + inverse.f
    return rows, cols


def _between_nodes(nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values at the nodes, linear in between, at the pixel centres: (17, 17) -> (256, 256)."""
    at = (np.arange(SIDE) + 0.5) / _NODES[1]
    low = at.astype(int)
    share = at - low
    down = nodes[low] * (1 - share)[:, None] + nodes[low + 1] * share[:, None]
    result: NDArray[np.float64] = down[:, low] * (1 - share) + down[:, low + 1] * share
    return result
