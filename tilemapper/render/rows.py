"""What travels down a block, row of tiles by row of tiles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class TileRow:
    """The tiles of one row of the lattice that a block needs."""

    index: int
    tiles: NDArray[np.uint8]  # (n, tile, tile, 3), filled where invalid
    active: NDArray[np.int64]  # which of them have a pixel worth rendering
    keep: NDArray[np.bool_]  # (tile, width): pixels that are valid and wanted


@dataclass
class PredictedRow:
    """The predictions of one row of tiles; None for those that were not run."""

    index: int
    keep: NDArray[np.bool_]
    predictions: list[NDArray[np.int16] | None]  # of n tiles, (channels, tile, tile) 0..2040
    channels: int
    missing: int = field(default=0)  # tiles still to come


@dataclass
class PixelRows:
    """Finished rows of a block, in order from top to bottom."""

    totals: NDArray[np.int32]  # (channels, rows, width): sums of weighted predictions
    keep: NDArray[np.bool_]  # (rows, width)
    squares: NDArray[np.int64] | None = None  # (rows, width): sums of weighted squares, all bands
    # (3, rows, width) grey levels or (1, rows, width) classes, uint8, where a device has made them
    # of the sums, which then are empty.
    picture: NDArray[np.uint8] | None = None
