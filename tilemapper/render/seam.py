"""How far overlapping tiles disagree: what blending hides, measured while rendering."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.rows import PredictedRow


@dataclass
class Seam:
    """Overlap disagreement: how far tiles side by side differ where they overlap.

    Only kept pixels of a block count, so that sums over blocks do not depend on their size. The
    sums are of whole numbers: eighths of a grey level, times 255 for palette models, of which the
    expected colours are compared.
    """

    colours: NDArray[np.int32] | None = None  # (classes, 3) of a palette model
    squares: int = 0
    count: int = 0

    def add(
        self, row: PredictedRow, lattice: Lattice, block: Block, starts: NDArray[np.int64]
    ) -> None:
        """Adds the overlaps of one row of tiles; ``starts`` are those of its columns."""
        top = int(lattice.rows.starts[row.index])
        # Every eighth row of the raster, wherever blocks begin: more would cost 1 % of a render.
        above = max(0, block.row - top)
        rows = slice(
            above + -(top + above) % 8, min(lattice.tile, block.row + block.height - top), 8
        )
        for place, (left, right) in enumerate(itertools.pairwise(starts)):
            first = max(int(right), block.col)
            end = min(int(left) + lattice.tile, block.col + block.width)
            keep = row.keep[rows, first - int(starts[0]) : max(first, end) - int(starts[0])]
            if not keep.any():
                continue
            tile, neighbour = row.predictions[place], row.predictions[place + 1]
            if tile is None or neighbour is None:  # what is kept was run by both: never here
                continue
            difference = (
                tile[:, rows, first - left : end - left]
                - neighbour[:, rows, first - right : end - right]
            )[:, keep].astype(np.int32)
            if self.colours is not None:
                difference = self.colours.T @ difference
            # Whole numbers below 2**53 in float64: the sum is exact in any order.
            wide = difference.astype(np.float64)
            self.squares += int(np.einsum("ij,ij->", wide, wide))
            self.count += wide.size

    def levels(self) -> float | None:
        """Root mean square of the differences in grey levels; None if nothing overlaps."""
        unit = 8 * (1 if self.colours is None else 255)
        return round((self.squares / self.count) ** 0.5 / unit, 4) if self.count else None
