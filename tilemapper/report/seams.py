"""SJI, the seam jump index: how far the lines of the lattice show in a rendered raster.

For each lattice line k (tile starts and ends, block borders), r_k is the mean absolute step
across the line, divided by the mean step across lines 8 to 25 px beside it. The index is the
median of r_k - 1, less the same at the same lines of the source: 0 is invisible. On natural
pictures one grey level of hard step gives about 0.22, three give 1.26.

    with SourceView(spec) as source, SourceView(map_spec) as rendered:
        seams = seam_jump_index(rendered, source, overlap=64)
    print(seams.index, [(group.axis, group.kind, group.index) for group in seams.groups])
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import RIM, TILE, Lattice
from tilemapper.report.lattice_lines import MARGIN, AxisLines, Core, cores, is_whole, lines_of
from tilemapper.report.line_steps import Steps, ratio

BLOCK = 4096
HEAT_CELLS = 256  # an axis at most, whatever the raster's size


class View(Protocol):
    """What is looked at: see `tilemapper.raster.source.SourceView` and `raster.tiles.WarpedRgb`."""

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) uint8 and validity (height, width) of a window."""
        ...


@dataclass(frozen=True)
class SeamGroup:
    """One kind of line in one direction; ``worst`` is the highest single line, ``worst_at`` it."""

    axis: str  # "vertical" lines lie between columns, "horizontal" ones between rows
    kind: str
    lines: int
    index: float
    worst: float
    worst_at: int


@dataclass(frozen=True)
class SeamJump:
    """The seam jump index of a rendered raster.

    Attributes:
        index: over all lines measured; None where no line could be (raster too small, or masked).
        rendered, source: the two medians of r_k - 1 whose difference ``index`` is.
        groups: the same for each kind and direction of lines.
        lines: lines measured; ``lines_there``: lines that the raster has.
        pixels: pixels looked at; ``whole`` if that was every pixel.
        heat: the index of each cell, the higher of both directions, (rows, cols) float32, NaN
            where nothing was measured.
        cell: side of a heat cell in pixels; the first begins at ``origin`` (-32) on both axes.
    """

    index: float | None
    rendered: float | None
    source: float | None
    groups: list[SeamGroup]
    lines: int
    lines_there: int
    pixels: int
    whole: bool
    heat: NDArray[np.float32] = field(repr=False)
    cell: int = 192
    origin: int = -RIM

    @property
    def worst_group(self) -> float | None:
        """The highest index of any kind of line in any direction."""
        return max((group.index for group in self.groups), default=None)


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
        if valid.any():
            for (rgb, _), sum_ in zip(seen, sums, strict=True):
                sum_.add(rgb, valid, core, window)
    return _result(sums, lines, pixels, is_whole(lattice), cell)


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


def _result(
    sums: list[Steps], lines: tuple[AxisLines, AxisLines], pixels: int, whole: bool, cell: int
) -> SeamJump:
    ratios = [[ratio(sum_.lines[axis]) for axis in (0, 1)] for sum_ in sums]
    groups = []
    for axis, name in ((1, "vertical"), (0, "horizontal")):
        for kind, is_kind in lines[axis].kinds.items():
            parts = [found[axis][is_kind] for found in ratios]
            known = np.isfinite(parts[0])
            if known.any():
                medians = [float(np.median(part[known])) for part in parts]
                apart = _less(parts)[known]
                worst = int(np.argmax(apart))
                groups.append(
                    SeamGroup(
                        name,
                        kind,
                        int(known.sum()),
                        medians[0] - sum(medians[1:]),
                        float(apart[worst]),
                        int(lines[axis].at[is_kind][known][worst]),
                    )
                )
    together = [np.concatenate(found) for found in ratios]
    known = np.isfinite(together[0])
    medians = [float(np.median(part[known])) for part in together] if known.any() else []
    return SeamJump(
        index=medians[0] - sum(medians[1:]) if medians else None,
        rendered=medians[0] if medians else None,
        source=medians[1] if len(medians) > 1 else None,
        groups=groups,
        lines=int(known.sum()),
        lines_there=len(known),
        pixels=pixels,
        whole=whole,
        heat=_heat(sums),
        cell=cell,
    )


def _heat(sums: list[Steps]) -> NDArray[np.float32]:
    """The higher of the two directions in each cell; NaN where neither was measured."""
    down, across = (_less([ratio(sum_.heat[axis]) for sum_ in sums]) for axis in (0, 1))
    return np.fmax(down, across).astype(np.float32)


def _less(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The first, less the second if there is one."""
    return parts[0] if len(parts) == 1 else parts[0] - parts[1]
