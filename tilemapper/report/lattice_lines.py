"""Where a seam could show: the lines of a lattice, and the windows in which they are looked at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.lattice import RIM, Axis, Lattice

STARTS, ENDS, BLOCKS = "tile starts", "tile ends", "block borders"
# Multiples of 32 px at which nothing begins or ends. A network paints in a pattern of its own, of
# 2 to 32 px, and all lines meet it in one phase: what these lines show is no seam.
NONE = "no line"
MARGIN = 26  # pixels on either side of a line that must be there: 25 steps and the pixel before
WINDOW = 1024  # side of a window with its margins: whole file blocks of 512 px, each decoded once
WHOLE_BELOW_PIXELS = 48_000_000
WINDOWS_AN_AXIS = 8


@dataclass(frozen=True)
class AxisLines:
    """The lines across one axis: ``at`` (n,) ascending, line k between the pixels k - 1 and k.

    ``kinds``: for each kind of line, which of ``at`` are of it, (n,) bool; a line may be several.
    """

    at: NDArray[np.int64]
    kinds: dict[str, NDArray[np.bool_]]

    @property
    def real(self) -> NDArray[np.bool_]:
        """Which of ``at`` are lines of the lattice, and not there for comparison, (n,) bool."""
        return ~self.kinds[NONE]


def lines_of(axis: Axis, block: int) -> AxisLines:
    """The lines of an axis that lie far enough from the raster's ends to be compared."""
    found = {
        STARTS: axis.starts,
        ENDS: axis.starts + axis.tile,
        BLOCKS: np.arange(block, axis.length, block, dtype=np.int64),
    }
    phases = np.arange(0, axis.length, RIM, dtype=np.int64)
    found[NONE] = np.setdiff1d(phases, np.concatenate(list(found.values())))
    at = np.unique(np.concatenate(list(found.values())))
    at = at[(at >= MARGIN) & (at <= axis.length - MARGIN)]
    return AxisLines(at, {kind: np.isin(at, places) for kind, places in found.items()})


@dataclass(frozen=True)
class Core:
    """Pixels whose lines are looked at; what is read has `MARGIN` more on every side."""

    row: int
    col: int
    height: int
    width: int


def is_whole(lattice: Lattice) -> bool:
    """Whether a raster of this size is looked at completely."""
    return lattice.height * lattice.width <= WHOLE_BELOW_PIXELS


def cores(lattice: Lattice, block: int, seed: int) -> Iterator[Core]:
    """The windows to look at: all of a small raster, an even sample of 64 Mpx of a large one.

    Ordered by rows, and those side by side begin at the same row: files that are compressed from
    top to bottom, such as PNG, are then decoded once.
    """
    if is_whole(lattice):
        rows, cols = (list(range(0, n, WINDOW)) for n in (lattice.height, lattice.width))
        for row in rows:
            for col in cols:
                yield _cut(lattice, row, col, WINDOW, WINDOW)
        return
    rng = random.Random(seed)
    rows, cols = (_sampled(n, block, rng) for n in (lattice.height, lattice.width))
    for row in rows:
        for col in cols:
            yield _cut(lattice, row + MARGIN, col + MARGIN, WINDOW - 2 * MARGIN, 0)


def _sampled(length: int, block: int, rng: random.Random) -> list[int]:
    """Starts of windows along an axis, one in each equal part, in steps of file blocks.

    A part that a block's border runs through has its window laid over one.
    """
    half = WINDOW // 2
    last = max(0, (length - WINDOW) // half)
    starts = set()
    for part in range(WINDOWS_AN_AXIS):
        low, high = (length * p // WINDOWS_AN_AXIS for p in (part, part + 1))
        borders = [at for at in range(-(-low // block) * block, high, block) if at]
        start = (rng.choice(borders) - half if borders else rng.randrange(low, high)) // half
        starts.add(min(start, last) * half)
    return sorted(starts)


def _cut(lattice: Lattice, row: int, col: int, height: int, width: int) -> Core:
    width = width or height
    return Core(row, col, min(height, lattice.height - row), min(width, lattice.width - col))


def every_line(axis: Axis, block: int, kind: str, most: int) -> list[int]:
    """All lines of a kind within the raster, to be drawn; none if there are more than ``most``."""
    if kind == BLOCKS:
        at = np.arange(block, axis.length, block)
    else:
        at = axis.starts if kind == STARTS else axis.starts + axis.tile
    at = at[(at > 0) & (at < axis.length)]
    return at.tolist() if len(at) <= most else []
