"""SJI, the seam jump index: how far the lines of the lattice show in a rendered raster.

For each lattice line k (tile starts and ends, block borders), r_k is the mean absolute step
across the line, divided by the mean step across lines 8 to 25 px beside it. The index is the
median of r_k - 1, less the same at the same lines of the source: 0 is invisible. On natural
pictures one grey level of hard step gives about 0.22, three give 1.26.

    with SourceView(spec) as source, SourceView(map_spec) as rendered:
        seams = seam_jump_index(rendered, source, overlap=64)
    print(seams.index, seams.excess, seams.worst_group, seams.groups)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import RIM, TILE, Lattice
from tilemapper.report.lattice_lines import (
    MARGIN,
    Core,
    cores,
    is_whole,
    lines_of,
)
from tilemapper.report.line_steps import Steps
from tilemapper.report.seam_figures import SeamGroup, SeamJump, seam_figures

__all__ = ["SeamGroup", "SeamJump", "View", "seam_jump_index"]

BLOCK = 4096
HEAT_CELLS = 256  # an axis at most, whatever the raster's size


class View(Protocol):
    """What is looked at: see `tilemapper.raster.source.SourceView` and `raster.tiles.WarpedRgb`."""

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) uint8 and validity (height, width) of a window."""
        ...


def seam_jump_index(
    rendered: View,
    source: View | None,
    *,
    height: int,
    width: int,
    overlap: int = 64,
    tile: int = TILE,
    block: int = BLOCK,
    seed: int = 0,
    on_window: Callable[[NDArray[np.uint8], NDArray[np.bool_]], None] | None = None,
) -> SeamJump:
    """Measures the seams of a rendered raster, in windows and with bounded memory.

    Args:
        rendered: the map, on a grid of ``height`` x ``width`` pixels.
        source: what it was rendered from, on the same grid; None to subtract nothing.
        height: rows of the grid.
        width: columns of the grid.
        overlap: of the lattice that it was rendered on.
        tile: of that lattice.
        block: side of the blocks that it was rendered in; their borders are lines too.
        seed: of the sample that is looked at of a raster of more than 48 Mpx.
        on_window: called with the map's pixels and their validity in each window that is looked
            at, (h, w, 3) and (h, w); windows do not overlap.

    Raises:
        RasterError: a window cannot be read.
        OptionError: there is no such lattice.
    """
    lattice = Lattice(height, width, overlap, tile)
    lines = (lines_of(lattice.rows, block), lines_of(lattice.cols, block))
    views = [rendered] if source is None else [rendered, source]
    shape, cell = _heat_grid(lattice)
    sums = [Steps(lines, shape, cell) for _ in views]
    pixels = 0
    for core in cores(lattice, block, seed):
        window = _with_margin(core, lattice)
        seen = [view.read(**vars(window)) for view in views]
        valid = np.logical_and.reduce([mask for _, mask in seen])
        pixels += core.height * core.width
        if on_window is not None:
            down, across = core.row - window.row, core.col - window.col
            inner = np.s_[down : down + core.height, across : across + core.width]
            on_window(seen[0][0][inner], seen[0][1][inner])
        if valid.any():
            for (rgb, _), sum_ in zip(seen, sums, strict=True):
                sum_.add(rgb, valid, core, window)
    return seam_figures(sums, lines, pixels, is_whole(lattice), cell)


def _heat_grid(lattice: Lattice) -> tuple[tuple[int, int], int]:
    """Cells of the heat map, (rows, cols), and their side: strides, as many as must be pooled."""
    longest = max(lattice.height, lattice.width) + RIM
    stride = lattice.rows.stride
    cell = stride * max(1, -(-longest // (stride * HEAT_CELLS)))
    return (-(-(lattice.height + RIM) // cell), -(-(lattice.width + RIM) // cell)), cell


def _with_margin(core: Core, lattice: Lattice) -> Core:
    row, col = max(0, core.row - MARGIN), max(0, core.col - MARGIN)
    end_row = min(lattice.height, core.row + core.height + MARGIN)
    end_col = min(lattice.width, core.col + core.width + MARGIN)
    return Core(row, col, end_row - row, end_col - col)
