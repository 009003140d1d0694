"""What a device needs of a block's source: strips of new rows, and what is to be done with them.

Strips cross the bus, not tiles: neighbours share rows and columns, and the device gathers its
tiles itself. Only tiles with masked pixels are cut and filled here, and travel whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.fill import fill_invalid
from tilemapper.raster.lattice import Block, Lattice, reflect
from tilemapper.render.strips import View

Bools = NDArray[np.bool_]


@dataclass
class Strip:
    """What one row of tiles needs that the device does not have yet.

    Attributes:
        index: of the row of tiles.
        fresh: (3, k, width) uint8, source rows below those that came before; k may be 0.
        dropped: rows of the band on the device, from its top, that are not needed any more.
        rows: (tile,) where each row of the tiles is found in the band, mirrored at the rims.
        active: which tiles have a pixel worth rendering.
        keep: (tile, across) pixels that are valid and wanted; None when all are.
        patches: (m,) among ``active``, and these tiles, (m, tile, tile, 3) uint8, filled.
    """

    index: int
    fresh: NDArray[np.uint8]
    dropped: int
    rows: NDArray[np.int64]
    active: NDArray[np.int64]
    keep: Bools | None
    patches: tuple[NDArray[np.int64], NDArray[np.uint8]] | None


@dataclass
class _Part:
    """Rows as they were read; None stands for all valid, or all wanted."""

    first: int
    rgb: NDArray[np.uint8]
    valid: Bools | None
    wanted: Bools | None


class SourceStrips:
    """Reads a block from top to bottom, each source row once; iterate over it.

    Attributes:
        starts: (n,) first column of each tile, in pixels of the raster.
        columns: (across,) where each column that the tiles cover is found in a strip.
    """

    def __init__(
        self, view: View, lattice: Lattice, block: Block, mean: tuple[int, int, int]
    ) -> None:
        self._view, self._lattice, self._block, self._mean = view, lattice, block, mean
        over = lattice.cols.tiles_over(block.col, block.col + block.width)
        self.starts = lattice.cols.starts[over.start : over.stop]
        across = reflect(np.arange(self.starts[0], self.starts[-1] + lattice.tile), lattice.width)
        self._col, self._width = int(across.min()), int(np.ptp(across)) + 1
        self.columns = across - self._col
        self._parts: deque[_Part] = deque()
        self._top = self._end = 0  # the source rows that the band holds

    def __iter__(self) -> Iterator[Strip]:
        """A strip for each row of tiles."""
        block, axis, tile = self._block, self._lattice.rows, self._lattice.tile
        for index in axis.tiles_over(block.row, block.row + block.height):
            start = int(axis.starts[index])
            rows = reflect(np.arange(start, start + tile), self._lattice.height)
            fresh, dropped = self._move(int(rows.min()), int(rows.max()) + 1)
            yield self._strip(index, fresh, dropped, rows - self._top)

    def _move(self, top: int, end: int) -> tuple[NDArray[np.uint8], int]:
        """Makes the band hold the rows [top, end); returns what is new, and how many go."""
        if not self._parts:
            self._top = self._end = top
        dropped, first = top - self._top, max(self._end, top)
        self._top, self._end = top, max(end, self._end)
        while self._parts and self._parts[0].first + self._parts[0].rgb.shape[1] <= top:
            self._parts.popleft()
        if self._end == first:
            return np.empty((3, 0, self._width), np.uint8), dropped
        window = {"row": first, "col": self._col, "width": self._width}
        rgb, valid = self._view.read(height=self._end - first, **window)
        wanted = self._view.wanted(height=self._end - first, **window)
        fresh = np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
        self._parts.append(_Part(first, fresh, *map(_unless_all, (valid, wanted))))
        return fresh, dropped

    def _strip(
        self, index: int, fresh: NDArray[np.uint8], dropped: int, rows: NDArray[np.int64]
    ) -> Strip:
        every = np.arange(len(self.starts))
        if all(part.valid is None and part.wanted is None for part in self._parts):
            return Strip(index, fresh, dropped, rows, every, None, None)
        valid = self._spread([part.valid for part in self._parts], rows)
        keep = valid & self._spread([part.wanted for part in self._parts], rows)
        tile = self._lattice.tile
        cuts = [slice(start, start + tile) for start in self.starts - self.starts[0]]
        active = every[[bool(keep[:, cut].any()) for cut in cuts]]
        holed = [place for place, at in enumerate(active) if not valid[:, cuts[at]].all()]
        patches = None
        if holed:
            rgb = self._band([part.rgb for part in self._parts], 1)[:, rows][:, :, self.columns]
            chosen = [cuts[at] for at in active[holed]]
            tiles = np.stack([rgb[:, :, cut].transpose(1, 2, 0) for cut in chosen])
            known = np.stack([valid[:, cut] for cut in chosen])
            patches = np.array(holed), fill_invalid(tiles, known, self._mean)
        return Strip(index, fresh, dropped, rows, active, keep, patches)

    def _spread(self, masks: list[Bools | None], rows: NDArray[np.int64]) -> Bools:
        """Masks of the parts as the tiles see them, (tile, across), mirrored at the rims."""
        shapes = [part.rgb.shape[1:] for part in self._parts]
        whole = [
            np.ones(shape, bool) if mask is None else mask
            for mask, shape in zip(masks, shapes, strict=True)
        ]
        spread: Bools = self._band(whole, 0)[rows][:, self.columns]
        return spread

    def _band(self, parts: list[NDArray[Any]], axis: int) -> NDArray[Any]:
        """Parts as one, from the band's first row on."""
        whole = np.concatenate(parts, axis=axis)
        above = self._top - self._parts[0].first
        return whole[above:] if axis == 0 else whole[:, above:]


def _unless_all(mask: Bools | None) -> Bools | None:
    return None if mask is None or mask.all() else mask
