"""Blocks, and where in them there is room: the distance from whatever limits a district."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROOM_STEP = 8  # the free room is known on every 8th pixel
_CORNER_U, _CORNER_V = np.array([0, 2, 0, 2]), np.array([1, 1, 3, 3])  # of u0, v0, u1, v1


@dataclass(frozen=True)
class Block:
    """A block between streets, [u0, u1) x [v0, v1); ``use`` is what stands on it."""

    u0: int
    v0: int
    u1: int
    v1: int
    kind: str
    use: str


@dataclass(frozen=True)
class Room:
    """How far places are from what limits a district: its avenues, rivers, motorways."""

    distance: NDArray[np.float32]  # (rows, cols), on every ROOM_STEP-th pixel, pixels

    def at(self, u: NDArray[np.int64], v: NDArray[np.int64]) -> NDArray[np.float32]:
        """Distance at points; points outside the sheet count as its edge."""
        height, width = self.distance.shape
        # Not np.clip, which is slow on short arrays.
        rows = np.minimum(np.maximum((v + ROOM_STEP // 2) // ROOM_STEP, 0), height - 1)
        columns = np.minimum(np.maximum((u + ROOM_STEP // 2) // ROOM_STEP, 0), width - 1)
        return np.asarray(self.distance[rows, columns])

    def fits(self, rects: NDArray[np.int64], margin: float) -> NDArray[np.bool_]:
        """Which rectangles (n, 4) as u0, v0, u1, v1 keep ``margin`` at their corners."""
        corners = self.at(rects[:, _CORNER_U], rects[:, _CORNER_V])  # (n, 4)
        return np.asarray((corners > margin).all(axis=1))

    def most(self, u0: int, v0: int, u1: int, v1: int) -> float:
        """Greatest distance within a rectangle."""
        step = ROOM_STEP
        part = self.distance[
            max(v0, 0) // step : v1 // step + 2, max(u0, 0) // step : u1 // step + 2
        ]
        return float(part.max()) if part.size else -1.0
