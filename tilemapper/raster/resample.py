"""Resampling along the pixel axes, in which no pixel depends on the window that was asked.

GDAL's warper derives its kernel from each window it is given. Here the taps of an output row or
column follow from its number alone and are added in one order, so windows agree bit for bit, and
validity is carried along: an invalid pixel weighs nothing, and leaves no dark fringe.

Shrinking by 2 or more averages the area that an output pixel covers; otherwise a cubic kernel,
stretched when it shrinks, keeps the image sharp without aliasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reader = Callable[[int, int, int, int], tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]
AREA_FROM_STEP = 2.0
_PANEL_PIXELS = 2_000_000


@dataclass(frozen=True)
class Taps:
    """For n outputs: source positions, (n, k) intp, and weights, (n, k) float32, rows sum to 1.

    enlarges: whether outputs are closer together than source pixels.
    """

    where: NDArray[np.intp]
    weights: NDArray[np.float32]
    enlarges: bool

    @property
    def first(self) -> int:
        """Least source position."""
        return int(self.where.min())

    @property
    def beyond(self) -> int:
        """One more than the greatest source position."""
        return int(self.where.max()) + 1


def taps(start: int, count: int, *, step: float, size: int) -> Taps:
    """Taps of outputs start to start + count - 1 on a source axis of size pixels.

    What a kernel reaches outside the source is left out and the rest made to sum to 1.
    """
    index = np.arange(start, start + count, dtype=np.float64)[:, None]
    if step >= AREA_FROM_STEP:
        low, high = index * step, (index + 1) * step
        first = np.floor(low)
        where = first + np.arange(math.ceil(step) + 1)
        weights = np.maximum(np.minimum(where + 1, high) - np.maximum(where, low), 0.0)
    else:
        stretch = max(step, 1.0)
        centre = (index + 0.5) * step - 0.5
        first = np.ceil(centre - 2 * stretch)
        where = first + np.arange(math.ceil(4 * stretch))
        weights = _cubic((where - centre) / stretch)
    weights = np.where((where >= 0) & (where < size), weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    # Rounding of the output's size can push the last one's kernel out: it takes the edge pixel.
    outside = total[:, 0] <= 1e-6
    where = np.clip(where, 0, size - 1)
    weights[outside] = np.eye(1, weights.shape[1])
    total[outside] = 1.0
    return Taps(where.astype(np.intp), (weights / total).astype(np.float32), step < 1)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Catmull-Rom's kernel."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resample_window(
    read: Reader,
    *,
    row: int,
    col: int,
    height: int,
    width: int,
    steps: tuple[float, float],
    size: tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A window of the output grid: (3, height, width) uint8, validity (height, width) or None.

    read(row, col, height, width) gives source windows likewise. steps: source pixels an output
    pixel spans along (rows, cols). size: height and width of the source. A pixel is valid if at
    least half of its kernel lies on valid pixels. The source is read in panels of some two
    million pixels, whatever the step.
    """
    out = np.empty((3, height, width), np.uint8)
    valid: NDArray[np.bool_] | None = None
    panel_width = max(1, min(width, int(4096 / steps[1])))
    panel_height = max(1, min(height, int(_PANEL_PIXELS / (panel_width * steps[1]) / steps[0])))
    for top in range(0, height, panel_height):
        down = taps(row + top, min(panel_height, height - top), step=steps[0], size=size[0])
        for left in range(0, width, panel_width):
            across = taps(col + left, min(panel_width, width - left), step=steps[1], size=size[1])
            here = np.s_[top : top + len(down.where), left : left + len(across.where)]
            rgb, panel_valid = _resample_panel(read, down, across)
            out[(slice(None), *here)] = rgb
            if panel_valid is not None:
                valid = np.ones((height, width), bool) if valid is None else valid
                valid[here] = panel_valid
    return out, valid


def _resample_panel(
    read: Reader, down: Taps, across: Taps
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    top, left = down.first, across.first
    rgb, valid = read(top, left, down.beyond - top, across.beyond - left)
    down = replace(down, where=down.where - top)
    across = replace(across, where=across.where - left)
    if valid is None or valid.all():
        mixed = _apply(rgb, down, across)
        kept = None
    else:
        mixed = _apply(rgb * valid, down, across)
        # What is missing, not what is there: exactly 0 where nothing is, whatever the window.
        there = 1 - _apply((~valid)[None].view(np.uint8), down, across)
        kept = there[0] >= 0.5
        mixed /= np.where(kept, there[0], np.float32(1))
    np.rint(mixed, out=mixed)
    np.clip(mixed, 0, 255, out=mixed)
    return mixed.astype(np.uint8), kept


def _apply(planes: NDArray[np.uint8], down: Taps, across: Taps) -> NDArray[np.float32]:
    """Planes, (n, h, w), mixed along both axes, (n, rows, cols); adds in the order of the taps."""
    if across.enlarges:  # columns are dear to gather: so while they are few
        return _mix_rows(_mix_cols(planes, across), down)
    return _mix_cols(_mix_rows(planes, down), across)


def _mix_rows(planes: NDArray[Any], taps: Taps) -> NDArray[np.float32]:
    out = np.zeros((planes.shape[0], len(taps.where), planes.shape[2]), np.float32)
    part = np.empty_like(out)
    for k in range(taps.where.shape[1]):
        np.multiply(planes[:, taps.where[:, k]], taps.weights[:, k, None], out=part)
        out += part
    return out


def _mix_cols(planes: NDArray[Any], taps: Taps) -> NDArray[np.float32]:
    out = np.zeros((*planes.shape[:2], len(taps.where)), np.float32)
    part = np.empty_like(out)
    for k in range(taps.where.shape[1]):
        np.multiply(np.take(planes, taps.where[:, k], axis=2), taps.weights[:, k], out=part)
        out += part
    return out
