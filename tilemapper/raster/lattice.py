"""Where tiles lie: one lattice for the whole raster, the same for every block and worker.

All starts are multiples of 32 counted from -32, so that every tile meets the network in the same
phase: its output shifts by 2.9 grey levels when a tile moves by one pixel, by 0.2 when it moves
by 32. Tiles reach 32 to 63 px beyond the raster's edge, where its pixels are reflected, because
zero padding inside the network spoils the outer 8 to 16 px of each tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError
from tilemapper.raster.blend import axis_weights

TILE = 256
RIM = 32
OVERLAPS = (0, 32, 64, 96, 128)
DEFAULT_OVERLAP = 64


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis of ``length`` pixels."""

    length: int
    overlap: int
    tile: int = TILE

    @property
    def stride(self) -> int:
        """Pixels from one start to the next."""
        return self.tile - self.overlap

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First pixel of each tile, (n,), ascending; the first is -32, the last covers the rim."""
        beyond = self.length + RIM - (self.tile - RIM)
        last = -RIM + max(0, -(-beyond // RIM)) * RIM
        return np.append(np.arange(-RIM, last, self.stride), last).astype(np.int64)

    @cached_property
    def weights(self) -> NDArray[np.int32]:
        """Blend weights, (n, tile) int32; over the tiles that cover a pixel they sum to 1024."""
        return axis_weights(self.starts, tile=self.tile, overlap=self.overlap)

    def tiles_over(self, first: int, end: int) -> range:
        """Indices of the tiles that reach into the pixels [first, end)."""
        low = int(np.searchsorted(self.starts, first - self.tile, side="right"))
        high = int(np.searchsorted(self.starts, end, side="left"))
        return range(low, high)


@dataclass(frozen=True)
class Block:
    """A rectangle of the raster that is rendered and staged at once, rim not counted."""

    row: int
    col: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """Stable name, used for its files and in the journal."""
        return f"r{self.row:07d}-c{self.col:07d}"


@dataclass(frozen=True)
class Lattice:
    """All tiles of a raster of ``height`` x ``width`` pixels.

    Raises:
        OptionError: the overlap is no multiple of 32 from 0 to 128.
    """

    height: int
    width: int
    overlap: int = 64
    tile: int = TILE

    def __post_init__(self) -> None:
        if self.overlap not in OVERLAPS:
            raise OptionError(
                f"overlap {self.overlap}: must be one of {', '.join(map(str, OVERLAPS))}, so that "
                "all tiles meet the network in one phase"
            )
        if 2 * self.overlap > self.tile:
            raise OptionError(
                f"overlap {self.overlap}: more than half of the tile of {self.tile} px; choose less"
            )
        if self.height < 1 or self.width < 1:
            raise OptionError(f"a raster of {self.width} x {self.height} px has no pixel to render")

    @cached_property
    def rows(self) -> Axis:
        """The axis from top to bottom."""
        return Axis(self.height, self.overlap, self.tile)

    @cached_property
    def cols(self) -> Axis:
        """The axis from left to right."""
        return Axis(self.width, self.overlap, self.tile)

    @property
    def tile_count(self) -> int:
        """Tiles of the whole raster, each counted once."""
        return len(self.rows.starts) * len(self.cols.starts)

    def blocks(self, size: int) -> list[Block]:
        """The raster cut into blocks of ``size`` px, row by row; those at the far edges smaller."""
        return [
            Block(row, col, min(size, self.height - row), min(size, self.width - col))
            for row in range(0, self.height, size)
            for col in range(0, self.width, size)
        ]

    def tiles_of(self, block: Block) -> int:
        """Tiles that must be run for a block; those across a border are run by both sides."""
        return len(self.rows.tiles_over(block.row, block.row + block.height)) * len(
            self.cols.tiles_over(block.col, block.col + block.width)
        )


def overlap_for(tile: int, wanted: int | None) -> int:
    """The overlap that is wanted, or where it is None 64 px, or the most that a small tile allows.

    What is wanted is checked by `Lattice`.
    """
    if wanted is not None:
        return wanted
    return max(o for o in OVERLAPS if o <= min(DEFAULT_OVERLAP, tile // 2))


def reflect(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices beyond [0, length) mirrored back into it; the edge pixel itself is not repeated."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    return np.where(folded < length, folded, period - folded)
