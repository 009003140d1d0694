"""The figures of the seam jump index, from sums of steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import RIM
from tilemapper.report.lattice_lines import NONE, AxisLines
from tilemapper.report.line_steps import SOFT, Steps, ratio

AXES = ("horizontal", "vertical")  # lines between rows, and lines between columns


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
        off_lattice: the same at other multiples of 32 px, where nothing begins or ends: the
            pattern that the network itself paints in, of which lines show a share.
        groups: the same for each kind and direction of lines, "no line" among them.
        lines: lines measured; ``lines_there``: lines that the raster has.
        pixels: pixels looked at; ``whole`` if that was every pixel.
        heat: the excess of each cell and its neighbours, the higher of both directions, (rows,
            cols) float32, NaN where nothing was measured; damped where the raster is flat.
        cell: side of a heat cell in pixels; the first begins at ``origin`` (-32) on both axes.
    """

    index: float | None
    rendered: float | None
    source: float | None
    off_lattice: float | None
    groups: list[SeamGroup]
    lines: int
    lines_there: int
    pixels: int
    whole: bool
    heat: NDArray[np.float32] = field(repr=False)
    cell: int = 192
    origin: int = -RIM

    def to_json(self) -> dict[str, Any]:
        """Plain values; the heat map is left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "heat"}
        values["groups"] = [asdict(group) for group in self.groups]
        return values | {"excess": self.excess, "worst_group": self.worst_group}

    @property
    def excess(self) -> float | None:
        """``index`` less ``off_lattice``: what the lattice adds to the network's own pattern."""
        if self.index is None or self.off_lattice is None:
            return self.index
        return self.index - self.off_lattice

    @property
    def worst_group(self) -> float | None:
        """The highest excess of any kind of line in any direction."""
        own = {group.axis: group.index for group in self.groups if group.kind == NONE}
        real = (group for group in self.groups if group.kind != NONE)
        return max((group.index - own.get(group.axis, 0.0) for group in real), default=None)


def seam_figures(
    sums: list[Steps], lines: tuple[AxisLines, AxisLines], pixels: int, whole: bool, cell: int
) -> SeamJump:
    """The figures of a map, ``sums[0]``, less those of its source, ``sums[1]``, if there is one."""
    ratios = [[ratio(sum_.lines[axis]) for axis in (0, 1)] for sum_ in sums]
    groups = [
        group
        for axis in (1, 0)
        for kind in lines[axis].kinds
        if (group := _group(lines[axis], axis, kind, [found[axis] for found in ratios]))
    ]
    real = np.concatenate([axis.real for axis in lines])
    together = [np.concatenate(found) for found in ratios]
    medians = _medians(together, real)
    beside = _medians(together, ~real)
    return SeamJump(
        index=_difference(medians),
        rendered=medians[0] if medians else None,
        source=medians[1] if len(medians) > 1 else None,
        off_lattice=_difference(beside),
        groups=groups,
        lines=int(np.isfinite(together[0][real]).sum()),
        lines_there=int(real.sum()),
        pixels=pixels,
        whole=whole,
        heat=_heat(sums, lines),
        cell=cell,
    )


def _group(
    lines: AxisLines, axis: int, kind: str, ratios: list[NDArray[np.float64]]
) -> SeamGroup | None:
    """The figures of one kind of line; None if none of them was measured."""
    chosen = lines.kinds[kind] & np.isfinite(ratios[0])
    if not chosen.any():
        return None
    index = _difference(_medians(ratios, chosen))
    assert index is not None
    apart = _less([part[chosen] for part in ratios])
    worst = int(np.argmax(apart))
    return SeamGroup(
        AXES[axis],
        kind,
        int(chosen.sum()),
        index,
        float(apart[worst]),
        int(lines.at[chosen][worst]),
    )


def _medians(ratios: list[NDArray[np.float64]], chosen: NDArray[np.bool_]) -> list[float]:
    """Of each raster's ratios at the chosen lines; none where no line was measured."""
    chosen = chosen & np.isfinite(ratios[0])
    return [float(np.median(part[chosen])) for part in ratios] if chosen.any() else []


def _difference(medians: list[float]) -> float | None:
    """The map's, less the source's if there is one."""
    return medians[0] - sum(medians[1:]) if medians else None


def _heat(sums: list[Steps], lines: tuple[AxisLines, AxisLines]) -> NDArray[np.float32]:
    """The higher of the two directions in each cell, less what is there without any line.

    A cell is taken with its eight neighbours, and as busy as the raster at least: on its own, a
    cell of a map with few edges would be hot by chance.
    """
    directions = []
    for axis in (0, 1):
        parts = []
        for sum_ in sums:
            mean = SOFT + sum_.heat[axis][2].sum() / max(1, int(sum_.heat[axis][3].sum()))
            # What lines show where nothing begins or ends, of the whole raster.
            own = sum_.lines[axis][:, ~lines[axis].real].sum(axis=1)
            parts.append(
                _damped(_pooled(sum_.heat[axis]), mean) - np.nan_to_num(_damped(own, mean))
            )
        heat = _less(parts)
        heat[sums[0].heat[axis][1] == 0] = np.nan
        directions.append(heat)
    return np.fmax(*directions).astype(np.float32)


def _pooled(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each cell's sums with those of its eight neighbours, (4, rows, cols)."""
    rows, cols = cells.shape[1:]
    padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    pooled = np.zeros_like(cells)
    for i, j in np.ndindex(3, 3):
        pooled += padded[:, i : i + rows, j : j + cols]
    return pooled


def _damped(sums: NDArray[np.int64], mean: float) -> NDArray[np.float64]:
    """Ratios less 1 from four sums, as `ratio` has them where steps beside lines are the mean."""
    step, count, beside, beside_count = sums.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 2 * ((step / count + mean) / (beside / beside_count + mean) - 1)
    return np.asarray(found, np.float64)


def _less(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The first, less the second if there is one."""
    return parts[0] if len(parts) == 1 else parts[0] - parts[1]
