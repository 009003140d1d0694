"""An area of interest, asked of one window of a grid after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask

Points = NDArray[np.float64]


class Area:
    """Polygons in pixels, (col, row), as `lay_on_pixels` gives them.

    A raster has thousands of windows and an area may have a hundred thousand corners: what lies
    beside a window is left out before GDAL gets to see it.
    """

    def __init__(self, geometry: dict[str, Any]) -> None:
        self._parts = [
            [_Ring.of(np.array(ring, np.float64)) for ring in part]
            for part in geometry["coordinates"]
        ]
        points = [np.concatenate([ring.points for ring in part]) for part in self._parts]
        self._low = np.array([each.min(axis=0) for each in points]).reshape(-1, 2)
        self._high = np.array([each.max(axis=0) for each in points]).reshape(-1, 2)

    def inside(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Pixels of a window whose centres lie in the polygons, (height, width)."""
        first, last = np.array((col, row)), np.array((col + width, row + height))
        near = ((self._low < last) & (self._high > first)).all(axis=1)
        parts = []
        for index in np.flatnonzero(near):
            rings = (ring.thinned(first, last) for ring in self._parts[index])
            kept = [[*ring, ring[0]] for ring in rings if len(ring) > 2]
            if kept:
                parts.append(kept)
        if not parts:
            return np.zeros((height, width), bool)
        mask: NDArray[np.bool_] = geometry_mask(
            [{"type": "MultiPolygon", "coordinates": parts}],
            out_shape=(height, width),
            transform=Affine.translation(col, row),
            invert=True,
        )
        return mask


@dataclass(frozen=True)
class _Ring:
    """A ring's corners, (n, 2), the first not repeated, and which of them always stay, (n,).

    GDAL turns rings round by the corner farthest up (the rightmost of these) and its neighbours,
    and on a level edge that runs through pixel centres the direction decides which pixels are in.
    """

    points: Points
    pinned: NDArray[np.bool_]

    @classmethod
    def of(cls, closed: Points) -> _Ring:
        """The ring of a list of points that ends where it begins."""
        points = closed[:-1]
        x, y = points.T
        at = int(np.lexsort((-x, y))[0])
        before, corner, after = points[at - 1], points[at], points[(at + 1) % len(points)]
        (a, b), (c, d) = before - corner, after - corner
        # Where this says nothing GDAL looks at all of them.
        told = a * d != b * c and (points == corner).all(axis=1).sum() == 1
        pinned = np.full(len(points), not told)
        pinned[[at - 1, at, (at + 1) % len(points)]] = True
        return cls(points, pinned)

    def thinned(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> list[list[float]]:
        """Corners of a ring that surrounds the same pixels of a window, with fewer beside it.

        Where a ring runs along one side of the window only the ends of that run count. Edges that
        may meet the window keep their ends bit for bit, so that windows agree about pixels there.
        """
        points, pinned = self.points, self.pinned
        for axis in (0, 1):
            for sign, bound in ((1, first[axis]), (-1, last[axis])):
                beside = sign * points[:, axis] <= sign * bound
                if beside.all():
                    return []
                kept = pinned | ~(beside & np.roll(beside, 1) & np.roll(beside, -1))
                points, pinned = points[kept], pinned[kept]
        thin: list[list[float]] = points.tolist()
        return thin
