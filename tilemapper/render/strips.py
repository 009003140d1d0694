"""From a source view to rows of tiles: each source row of a block is read once.

A strip of one tile's height rolls down the block; what lies beyond the raster is mirrored, and
what is masked is filled before any network sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.fill import fill_invalid
from tilemapper.raster.lattice import Block, Lattice, reflect
from tilemapper.render.rows import TileRow


class View(Protocol):
    """What a block reads from: see `tilemapper.raster.source.SourceView`."""

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) uint8 and validity (height, width) bool of a window."""
        ...

    def wanted(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Pixels inside the area of interest, (height, width) bool; None when all are."""
        ...


def read_tile_rows(
    view: View, lattice: Lattice, block: Block, mean: tuple[int, int, int]
) -> Iterator[TileRow]:
    """Reads a block strip by strip, each source row once, and cuts it into rows of tiles.

    Of a block without a pixel of the area of interest nothing is read: the area may be a small
    part of a large raster.
    """
    columns = lattice.cols.tiles_over(block.col, block.col + block.width)
    starts = lattice.cols.starts[columns.start : columns.stop]
    tile = lattice.tile
    across = np.arange(starts[0], starts[-1] + tile)
    indices = lattice.rows.tiles_over(block.row, block.row + block.height)
    if lies_beside(view, block):
        for index in indices:
            tiles = np.zeros((len(starts), tile, tile, 3), np.uint8)
            keep = np.zeros((tile, len(across)), bool)
            yield TileRow(index, tiles, np.zeros(0, np.int64), keep)
        return
    strip = _Strip(view, lattice, across)
    for index in indices:
        strip.move_to(int(lattice.rows.starts[index]))
        cuts = [slice(start, start + tile) for start in starts - starts[0]]
        tiles = np.stack([strip.rgb[:, cut] for cut in cuts])
        keep = strip.valid if strip.wanted is None else strip.valid & strip.wanted
        active = np.flatnonzero([keep[:, cut].any() for cut in cuts])
        if not strip.valid.all():
            valid = np.stack([strip.valid[:, cut] for cut in cuts])
            tiles[active] = fill_invalid(tiles[active], valid[active], mean)
        yield TileRow(index, tiles, active, keep.copy())


def lies_beside(view: View, block: Block) -> bool:
    """Whether no pixel of a block is of the area of interest."""
    wanted = view.wanted(row=block.row, col=block.col, height=block.height, width=block.width)
    return wanted is not None and not wanted.any()


class _Strip:
    """A rolling strip of one tile's height: rows that two rows of tiles share are kept."""

    def __init__(self, view: View, lattice: Lattice, across: NDArray[np.int64]) -> None:
        self._view, self._height, self._tile = view, lattice.height, lattice.tile
        columns = reflect(across, lattice.width)
        self._col, self._width = int(columns.min()), int(np.ptp(columns)) + 1
        # Columns inside the raster are one slice; only the rims, if any, are gathered.
        inside = np.flatnonzero((across >= 0) & (across < lattice.width))
        self._inside = slice(int(inside[0]), int(inside[-1]) + 1)
        self._first = int(across[inside[0]]) - self._col
        rim = np.flatnonzero((across < 0) | (across >= lattice.width))
        self._rim, self._rim_columns = rim, columns[rim] - self._col
        self._start: int | None = None
        self.rgb = np.empty((self._tile, len(across), 3), np.uint8)
        self.valid = np.empty((self._tile, len(across)), bool)
        self.wanted: NDArray[np.bool_] | None = None

    def move_to(self, start: int) -> None:
        """Makes the strip hold the rows [start, start + tile)."""
        kept = 0 if self._start is None else max(0, self._start + self._tile - start)
        if kept:
            self.rgb[:kept] = self.rgb[-kept:].copy()
            self.valid[:kept] = self.valid[-kept:].copy()
            if self.wanted is not None:
                self.wanted[:kept] = self.wanted[-kept:].copy()
        self._start = start
        self._read(kept, np.arange(start + kept, start + self._tile))

    def _read(self, at: int, rows: NDArray[np.int64]) -> None:
        rows = reflect(rows, self._height)
        window = {
            "row": int(rows.min()),
            "col": self._col,
            "height": int(np.ptp(rows)) + 1,
            "width": self._width,
        }
        rgb, valid = self._view.read(**window)
        wanted = self._view.wanted(**window)
        rows = rows - window["row"]
        if valid.any():  # else all of it is filled, in tiles that are run at all
            self._place(self.rgb[at:], rgb, rows)
        self._place(self.valid[at:], valid, rows)
        if wanted is not None:
            if self.wanted is None:
                self.wanted = np.empty_like(self.valid)
            self._place(self.wanted[at:], wanted, rows)

    def _place(
        self, out: NDArray[np.generic], pixels: NDArray[np.generic], rows: NDArray[np.int64]
    ) -> None:
        """Puts what was read into the strip, mirrored where the strip reaches beyond the raster."""
        if (np.diff(rows) != 1).any():
            pixels = pixels[rows]
        width = self._inside.stop - self._inside.start
        out[:, self._inside] = pixels[:, self._first : self._first + width]
        if len(self._rim):
            out[:, self._rim] = pixels[:, self._rim_columns]
