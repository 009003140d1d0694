"""Steps across lines and beside them, summed window by window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import RIM
from tilemapper.report.lattice_lines import AxisLines, Core

NEAR, FAR = 8, 25
# Grey levels added to both steps of a ratio: on flat colour 0 / 0 is 1, and no step is infinite.
SOFT = 0.01
_BESIDE = np.concatenate([np.arange(-FAR, -NEAR + 1), np.arange(NEAR, FAR + 1)])


class Steps:
    """Sums of steps of one raster, for each line and for each heat cell.

    ``lines[axis]`` and ``heat[axis]`` hold four rows: steps across lines and how many, steps beside
    lines and how many.
    """

    def __init__(
        self, lines: tuple[AxisLines, AxisLines], shape: tuple[int, int], cell: int
    ) -> None:
        self._lines, self._cell = lines, cell
        self.lines = [np.zeros((4, len(axis.at)), np.int64) for axis in lines]
        self.heat = [np.zeros((4, *shape), np.int64) for _ in lines]

    def add(
        self, rgb: NDArray[np.uint8], valid: NDArray[np.bool_], core: Core, window: Core
    ) -> None:
        """Adds the lines within ``core``; the arrays are those of ``window``."""
        down, across = core.row - window.row, core.col - window.col
        rows, cols = slice(down, down + core.height), slice(across, across + core.width)
        self._add(1, rgb[rows], valid[rows], core.row, (core.col, core.width), window.col)
        turned, turned_valid = rgb[:, cols].transpose(1, 0, 2), valid[:, cols].T
        self._add(0, turned, turned_valid, core.col, (core.row, core.height), window.row)

    def _add(
        self,
        axis: int,
        rgb: NDArray[np.uint8],
        valid: NDArray[np.bool_],
        along: int,
        span: tuple[int, int],
        first: int,
    ) -> None:
        """Adds the lines between columns of the array, which are those of ``axis``."""
        at = self._lines[axis].at
        here = np.flatnonzero((at >= span[0]) & (at < span[0] + span[1]))
        if not len(here):
            return
        cuts, cells = _segments(along, len(rgb), self._cell)
        sums, counts = _steps(rgb, valid, cuts)
        places = at[here] - first - 1  # step i is the one between the columns i and i + 1
        beside = places[:, None] + _BESIDE
        parts = (
            sums[:, places],
            counts[:, places],
            sums[:, beside].sum(axis=2),
            counts[:, beside].sum(axis=2),
        )
        real = self._lines[axis].real[here]
        columns = (at[here][real] + RIM) // self._cell
        grid = np.ix_(cells, columns) if axis else np.ix_(columns, cells)
        for index, part in enumerate(parts):
            self.lines[axis][index, here] += part.sum(axis=0)
            on_lines = part[:, real]
            np.add.at(self.heat[axis][index], grid, on_lines if axis else on_lines.T)


def _segments(first: int, length: int, cell: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the heat cells begin within [first, first + length), from 0, and which cells."""
    cells = np.arange((first + RIM) // cell, (first + length - 1 + RIM) // cell + 1)
    return np.maximum(cells * cell - RIM - first, 0), cells


def _steps(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], cuts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Absolute steps between neighbouring columns, summed over the rows of each segment.

    Returns:
        Sums over valid pairs and all bands, and three times the number of pairs, each
        (segments, columns - 1).
    """
    left, right = rgb[:, :-1], rgb[:, 1:]
    step = np.maximum(left, right) - np.minimum(left, right)  # (rows, columns - 1, 3) uint8
    pairs = valid[:, :-1] & valid[:, 1:]
    if not pairs.all():
        step *= pairs[..., None]
    grey = step.sum(axis=2, dtype=np.uint16)
    return (
        np.add.reduceat(grey, cuts, axis=0, dtype=np.int64),
        3 * np.add.reduceat(pairs, cuts, axis=0, dtype=np.int64),
    )


def ratio(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ratios less 1 from four rows of sums; NaN where no pair of pixels was valid."""
    step, count, beside, beside_count = sums.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (step / count + SOFT) / (beside / beside_count + SOFT) - 1
    return found
