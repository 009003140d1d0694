"""A grid seen from another CRS: from there to its pixels, and boxes that surely surround it."""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as reproject

from tilemapper.raster.opening import GDAL_ERRORS

Points = NDArray[np.float64]
Box = tuple[float, float, float, float]

_SAMPLES = 65  # along either side of the grid
_MARGIN = 0.1  # of the grid's extent: far more than can lie between two samples
# A raster that leaves less of the circle free than this goes around the world.
_FREE = 1 / 18


class Placing:
    """Points (n, 2), x and y of a CRS, to (col, row) in the pixels of a grid, and back."""

    def __init__(
        self, crs: CRS, *, grid_crs: CRS, transform: Affine, height: int, width: int
    ) -> None:
        self._crs, self._grid_crs, self._transform = crs, grid_crs, transform
        self._height, self._width = height, width
        self._turn, self._grid_turn = _turn(crs), _turn(grid_crs)
        corners = self._ground(np.array([(0, 0), (width, 0), (0, height), (width, height)], float))
        self._middle = float(corners[:, 0].mean())
        if np.ptp(corners[:, 0]) > self._grid_turn * (1 - _FREE):
            self._grid_turn = math.inf

    def to_pixels(self, points: Points) -> Points:
        """(col, row) of points. Raises one of `GDAL_ERRORS` where one cannot be expressed."""
        x, y = np.array(reproject(self._crs, self._grid_crs, *points.T.tolist())[:2])
        if math.isfinite(self._grid_turn):
            # A grid may go on beyond 180 degrees, and points must not fall apart there.
            x = x + self._grid_turn * np.round((self._middle - x) / self._grid_turn)
        a, b, c, d, e, f = tuple(~self._transform)[:6]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def boxes(self) -> list[Box] | None:
        """Boxes (left, bottom, right, top) of the CRS, no two of which overlap, around the grid.

        Several are as many ways to count the same longitudes. None: the grid reaches beyond what
        can be expressed, so no box can be told.
        """
        cols, rows = np.linspace(0, self._width, _SAMPLES), np.linspace(0, self._height, _SAMPLES)
        places = np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2)
        try:
            points = np.array(
                reproject(self._grid_crs, self._crs, *self._ground(places).T.tolist())[:2]
            )
        except GDAL_ERRORS:
            return None
        if not np.isfinite(points).all():
            return None
        (x, y), turn = points, self._turn
        low, high = _wider(float(y.min()), float(y.max()))
        if math.isinf(turn):
            left, right = _wider(float(x.min()), float(x.max()))
            return [(left, low, right, high)]
        start, length = _arc(x, turn)
        south, north = (self._has(start + length / 2 + turn / 2, s * turn / 4) for s in (-1, 1))
        low = -turn / 4 if south else max(low, -turn / 4)
        high = turn / 4 if north else min(high, turn / 4)
        if south or north or turn - length < _FREE * turn:
            return [(-math.inf, low, math.inf, high)]
        beyond = min(_MARGIN * length, (turn - length) / 4)
        return [
            (start + k * turn - beyond, low, start + length + k * turn + beyond, high)
            for k in (-2, -1, 0)
        ]

    def _ground(self, places: Points) -> Points:
        t = self._transform
        col, row = places.T
        return np.stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f], axis=1)

    def _has(self, x: float, y: float) -> bool:
        """Whether a pole lies in the grid, or so near that samples may miss how near.

        It is asked for at the longitude opposite to the grid's: where poles are lines, none does.
        """
        try:
            ((col, row),) = self.to_pixels(np.array([(x, y)]))
        except GDAL_ERRORS:
            return False
        aside = abs(col / self._width - 0.5), abs(row / self._height - 0.5)
        return bool(max(aside) <= 0.5 + 1.5 / _SAMPLES)


def _turn(crs: CRS) -> float:
    """A full circle in the CRS's units; infinite unless it counts longitudes."""
    return 2 * math.pi / float(crs.units_factor[1]) if crs.is_geographic else math.inf


def _wider(low: float, high: float) -> tuple[float, float]:
    beyond = _MARGIN * (high - low)
    return low - beyond, high + beyond


def _arc(longitudes: NDArray[np.float64], turn: float) -> tuple[float, float]:
    """Start, in [0, turn), and length of the shortest arc that holds all of these."""
    around = np.sort(longitudes % turn)
    gaps = np.diff(around, append=around[0] + turn)
    widest = int(gaps.argmax())
    return float(around[(widest + 1) % len(around)]), turn - float(gaps[widest])
