"""What travels down a block, row of tiles by row of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import TILE, Block


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


def rows_beside(block: Block, channels: int, *, squares: bool) -> Iterator[PixelRows]:
    """All rows of a block of which nothing is wanted, a few at a time; ``squares`` as asked for."""
    for row in range(0, block.height, TILE):
        shape = min(TILE, block.height - row), block.width
        yield PixelRows(
            np.zeros((channels, *shape), np.int32),
            np.zeros(shape, bool),
            np.zeros(shape, np.int64) if squares else None,
        )
