"""A piece of a mosaic's map, and where it lies in the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine


@dataclass(frozen=True)
class Part:
    """A piece of a mosaic's map that becomes an output of its own.

    box: in the CRS, for one output a scene; cell: row and column, for one output a cell.
    """

    whole: str
    box: tuple[float, float, float, float] | None = None
    cell: tuple[int, int] | None = None
    cell_px: int = 0


def window_of(
    part: Part, transform: Affine, height: int, width: int
) -> tuple[int, int, int, int] | None:
    """Row, col, height, width of a part in the whole map; None if it lies outside of it."""
    if part.cell is not None:
        rows = part.cell[0] * part.cell_px, (part.cell[0] + 1) * part.cell_px
        cols = part.cell[1] * part.cell_px, (part.cell[1] + 1) * part.cell_px
    else:
        assert part.box is not None
        left, bottom, right, top = part.box
        # A hair inside, so that a scene's own edge adds no pixel by rounding.
        rows = (
            math.floor((top - transform.f) / transform.e + 1e-6),
            math.ceil((bottom - transform.f) / transform.e - 1e-6),
        )
        cols = (
            math.floor((left - transform.c) / transform.a + 1e-6),
            math.ceil((right - transform.c) / transform.a - 1e-6),
        )
    first_row, first_col = max(0, rows[0]), max(0, cols[0])
    end_row, end_col = min(height, rows[1]), min(width, cols[1])
    if first_row >= end_row or first_col >= end_col:
        return None
    return first_row, first_col, end_row - first_row, end_col - first_col
