"""A small window of the city in whole numbers, so that a pixel has one value in every window.

Directions are integers times 2**14, positions quarter pixels. Sums stay exact, whatever the window
starts from, and differ between no two machines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city.lines import UNIT, Family
from tilemapper.report.city.plan import Plan


class Beside(NamedTuple):
    """Where pixels lie along and beside a line; see `Frame.beside`."""

    t: NDArray[np.int32]  # pixels along the line, less t0
    t0: int
    n4: NDArray[np.int32]  # quarter pixels beside the line's middle, with its sign


class Frame:
    """Columns x0 to x0 + width, rows y0 to y0 + height, straight and bent (`Plan.warp`).

    The bent place of a pixel, in quarter pixels, is ``x4[column] + x_shift[row]`` and
    ``y4[row] + y_shift[column]``: a sum of one row and one column of numbers, as is all that is
    linear in it.
    """

    def __init__(self, plan: Plan, x0: int, y0: int, width: int, height: int) -> None:
        self.x0, self.y0, self.width, self.height = x0, y0, width, height
        self.x = np.arange(x0, x0 + width, dtype=np.int64)
        self.y = np.arange(y0, y0 + height, dtype=np.int64)
        x_shift, y_shift = plan.warp(self.x, self.y)
        self.x4, self.y4 = 4 * self.x, 4 * self.y
        self.x_shift = np.rint(4 * x_shift).astype(np.int64)
        self.y_shift = np.rint(4 * y_shift).astype(np.int64)

    def corners(self) -> tuple[int, int, int, int]:
        """Least x and y, greatest x and y, of the straight window."""
        return self.x0, self.y0, self.x0 + self.width - 1, self.y0 + self.height - 1

    def bounds(self) -> tuple[float, float, float, float]:
        """Least and greatest x, least and greatest y, of the bent window, pixels."""
        return (
            float(self.x4[0] + self.x_shift.min()) / 4,
            float(self.x4[-1] + self.x_shift.max()) / 4,
            float(self.y4[0] + self.y_shift.min()) / 4,
            float(self.y4[-1] + self.y_shift.max()) / 4,
        )

    def beside(self, family: Family, line: int, reach: int) -> Beside | None:
        """Places along and beside a line; None when no pixel is within ``reach`` of its middle."""
        c, s = family.along
        x, y = self.x, self.y
        t0 = int(min(c * x[0], c * x[-1]) + min(s * y[0], s * y[-1])) // UNIT
        t = plane(c * x, s * y, 14, t0)
        offset = family.offset(line, t0 + np.arange(int(t.max()) + 2))
        slope = np.diff(offset)
        middle = np.rint(4 * offset[:-1]).astype(np.int64)
        n0 = int(middle[0])
        middle -= n0
        n4 = plane(-s * x, c * y, 12, n0)
        # The distance across is shorter than that along n where the line runs askew.
        far = 4 * reach * 2
        if int(n4.max()) < int(middle.min()) - far or int(n4.min()) > int(middle.max()) + far:
            return None
        n4 -= middle.astype(np.int32)[t]
        n4 *= np.rint(256.0 / np.sqrt(1.0 + slope * slope)).astype(np.int32)[t]
        n4 >>= np.int32(8)
        if int(np.abs(n4).min()) > 4 * reach:
            return None
        return Beside(t, t0, n4)


def plane(
    columns: NDArray[np.int64], rows: NDArray[np.int64], shift: int, origin: int
) -> NDArray[np.int32]:
    """((columns + rows) >> shift) - origin for each pixel, (rows, columns) int32."""
    start = int(rows[0])
    left = (columns + (start - (origin << shift))).astype(np.int32)
    sums = left[None, :] + (rows - start).astype(np.int32)[:, None]
    sums >>= np.int32(shift)
    return sums


def extent(wanted: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest window around what is wanted, of which there must be some."""
    rows: Any = np.flatnonzero(wanted.any(axis=1))
    columns: Any = np.flatnonzero(wanted.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
