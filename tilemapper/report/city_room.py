"""Where a district has room for buildings: the distance from whatever limits it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROOM_STEP = 8  # the free room is known on every 8th pixel


@dataclass(frozen=True)
class Room:
    """How far places are from what limits a district: its avenues, rivers, motorways."""

    distance: NDArray[np.float32]  # (rows, cols), on every ROOM_STEP-th pixel, pixels

    def at(self, u: NDArray[np.int64], v: NDArray[np.int64]) -> NDArray[np.float32]:
        """Distance at points; points outside the sheet count as its edge."""
        rows = np.clip((v + ROOM_STEP // 2) // ROOM_STEP, 0, self.distance.shape[0] - 1)
        columns = np.clip((u + ROOM_STEP // 2) // ROOM_STEP, 0, self.distance.shape[1] - 1)
        return self.distance[rows, columns]

    def fits(self, rects: NDArray[np.int64], margin: float) -> NDArray[np.bool_]:
        """Which rectangles (n, 4) as u0, v0, u1, v1 keep ``margin`` at their corners."""
        fit = np.ones(len(rects), bool)
        for across, down in ((0, 1), (2, 1), (0, 3), (2, 3)):
            fit &= self.at(rects[:, across], rects[:, down]) > margin
        return fit

    def most(self, u0: int, v0: int, u1: int, v1: int) -> float:
        """Greatest distance within a rectangle."""
        step = ROOM_STEP
        part = self.distance[
            max(v0, 0) // step : v1 // step + 2, max(u0, 0) // step : u1 // step + 2
        ]
        return float(part.max()) if part.size else -1.0
