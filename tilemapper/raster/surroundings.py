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
_DEGREES = CRS.from_string("OGC:CRS84")
# Of a turn: where a grid around the world begins and ends, areas are cut so far apart, for which
# end a point on the cut belongs to could not be told. No pixel is as narrow.
_HAIR = 1e-9


class Placing:
    """Points (n, 2), x and y of a CRS, to (col, row) in the pixels of a grid, and back."""

    def __init__(
        self, crs: CRS, *, grid_crs: CRS, transform: Affine, height: int, width: int
    ) -> None:
        self._crs, self._grid_crs, self._transform = crs, grid_crs, transform
        self._height, self._width = height, width
        self._turn = _turn(crs) if crs.is_geographic else math.inf
        self._grid_turn = _turn(grid_crs)
        corners = self._corners = self._ground(
            np.array([(0, 0), (width, 0), (0, height), (width, height)], float)
        )
        self._middle, self._level = map(float, corners.mean(axis=0))
        self._is_around = bool(np.ptp(corners[:, 0]) > self._grid_turn * (1 - _FREE))
        if math.isinf(self._turn) and (self._is_around or not grid_crs.is_geographic):
            self._grid_turn = math.inf  # nothing of what is asked for counts longitudes

    def to_pixels(self, points: Points) -> Points:
        """(col, row) of points. Raises one of `GDAL_ERRORS` where one cannot be expressed."""
        x, y = np.array(reproject(self._crs, self._grid_crs, *points.T.tolist())[:2])
        if math.isfinite(self._grid_turn):
            # A grid may go on beyond 180 degrees, and points must not fall apart there.
            x = x + self._grid_turn * np.round((self._middle - x) / self._grid_turn)
        a, b, c, d, e, f = tuple(~self._transform)[:6]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def turns(self) -> Points:
        """How far, in (col, row), the same ground lies again on a grid beyond the world's turn.

        (n, 2), once around for each; all zeros at first, and nothing else on most grids.
        """
        if not (self._is_around and math.isfinite(self._grid_turn)):
            return np.zeros((1, 2))
        t = ~self._transform
        once = np.array([t.a, t.d]) * self._grid_turn
        beyond = (np.ptp(self._corners[:, 0]) / self._grid_turn - 1) / 2 - _HAIR
        again = max(0, math.ceil(beyond))
        return np.array([once * k for k in sorted(range(-again, again + 1), key=abs)])

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
        across = start + length / 2 + turn / 2
        south, north = (self._has(across, s * turn / 4) for s in (-1, 1))
        least, most = self._latitudes(float(y.min()), float(y.max()))
        low = -turn / 4 if south else max(low, least)
        high = turn / 4 if north else min(high, most)
        if self._is_around:
            return self._turns(low, high)
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

    def _latitudes(self, south: float, north: float) -> tuple[float, float]:
        """Least and most that can be expressed: a cylinder has no poles, or far from all else."""
        pole = self._turn / 4
        if self._grid_crs.is_geographic or math.isinf(self._grid_turn):
            return -pole, pole
        return (south - pole) / 2, (north + pole) / 2

    def _turns(self, low: float, high: float) -> list[Box]:
        """Boxes from end to end of a grid around the world, for each way to count longitudes."""
        end = np.array([self._middle + self._grid_turn / 2]), np.array([self._level])
        seam = float(reproject(self._grid_crs, self._crs, *end)[0][0]) % self._turn
        hair = _HAIR * self._turn
        starts = (seam + k * self._turn for k in range(-3, 2))
        return [(start + hair, low, start + self._turn - hair, high) for start in starts]

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
    """What x grows by once around the world, in the CRS's units; infinite if not by longitude.

    By longitude alone it grows in a geographic CRS and on a cylinder, such as Mercator's.
    """
    if crs.is_geographic:
        return 2 * math.pi / float(crs.units_factor[1])
    longitudes, latitudes = [0, 1, 2] * 2, [0] * 3 + [40] * 3
    try:
        x = np.array(reproject(_DEGREES, crs, longitudes, latitudes)[0]).reshape(2, 3)
    except GDAL_ERRORS:
        return math.inf
    steps = np.diff(x)
    even = np.allclose(steps, steps[0, 0], rtol=1e-9, atol=0) and np.array_equal(*x)
    return 360 * float(steps[0, 0]) if even and steps[0, 0] > 0 else math.inf


def _wider(low: float, high: float) -> tuple[float, float]:
    beyond = _MARGIN * (high - low)
    return low - beyond, high + beyond


def _arc(longitudes: NDArray[np.float64], turn: float) -> tuple[float, float]:
    """Start, in [0, turn), and length of the shortest arc that holds all of these."""
    around = np.sort(longitudes % turn)
    gaps = np.diff(around, append=around[0] + turn)
    widest = int(gaps.argmax())
    return float(around[(widest + 1) % len(around)]), turn - float(gaps[widest])
