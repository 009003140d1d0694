"""Exact blending: integer weights that sum to one by construction, integer sums, no division.

Along an axis the weights of the tiles that cover a pixel sum to 1024; a tile's weight at a pixel
is the product of both axes, so they sum to 2**20. Predictions are quantised to an eighth of a
grey level (0..2040). The largest sum, 2040 * 2**20 + 2**22, stays below 2**31, and integer
addition knows no order: the result cannot depend on batches, blocks or workers.

The functions that take pixels work on numpy arrays and on torch tensors alike: slicing,
``*``, ``+=`` and ``>>`` only, so that CPU and GPU do the same arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AXIS_ONE = 1024
LEVELS = 8  # steps a grey level
TOP = 255 * LEVELS
SHIFT = 23  # 2**20 of weight times 2**3 of quantisation
HALF = 1 << (SHIFT - 1)


def taper(tile: int, overlap: int) -> NDArray[np.float64]:
    """Raised-cosine ramps of ``overlap`` px at both ends of a tile, 1 between, (tile,) float64.

    Neighbouring ramps add up to 1 without a division, which full Hann windows do not.
    """
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / max(overlap, 1))
    return np.concatenate([ramp, np.ones(tile - 2 * overlap), ramp[::-1]])


def axis_weights(starts: NDArray[np.int64], *, tile: int, overlap: int) -> NDArray[np.int32]:
    """Weights of the tiles along one axis, (n, tile) int32, summing to 1024 at every pixel.

    The last tile may overlap its neighbours by more than ``overlap``, so tapers are normalised
    over the tiles that cover a pixel. Rounding the running sum, not each weight, keeps the sum.
    """
    origin = int(starts[0])
    span = int(starts[-1]) - origin + tile
    shape = taper(tile, overlap)
    total = np.zeros(span)
    for start in starts - origin:
        total[start : start + tile] += shape
    share = np.zeros(span)  # running sum of normalised tapers
    given = np.zeros(span, np.int64)  # running sum of rounded weights
    weights = np.empty((len(starts), tile), np.int32)
    for index, start in enumerate(starts - origin):
        here = slice(start, start + tile)
        share[here] += shape / total[here]
        # The slack absorbs float error, so that a finished pixel comes to 1024 exactly.
        due = np.floor(AXIS_ONE * share[here] + 0.5 + 1e-6).astype(np.int64)
        weights[index] = due - given[here]
        given[here] = due
    return weights


def blend_along(row: Any, tiles: Any, weights: Any, starts: NDArray[np.int64]) -> None:
    """Adds tiles that lie side by side into one row of tiles, weighted along the columns.

    Args:
        row: (channels, tile, width) integers, added to in place; width is at least what the tiles
            cover, plus one tile.
        tiles: (n, channels, tile, tile) integers 0..2040.
        weights: (n, tile) int32, of these tiles.
        starts: (n,) first column of each tile within ``row``.
    """
    tile = tiles.shape[-1]
    count = len(starts)
    if count == 1 or isinstance(row, np.ndarray):
        # On a CPU one tile at a time stays in its cache: twice as fast as all at once.
        for start, one, weight in zip(starts, tiles, weights, strict=True):
            row[:, :, start : start + tile] += one * weight
        return
    # Every second tile lies clear of the one before: two additions serve all regular tiles, and
    # the last one, which may lie closer, takes a third.
    stride = int(starts[1] - starts[0])
    for group in (slice(0, count - 1, 2), slice(1, count - 1, 2), slice(count - 1, count)):
        part = tiles[group]
        if not len(part):
            continue
        first = int(starts[group][0])
        step = 2 * stride if len(part) > 1 else tile
        lanes = row[:, :, first : first + len(part) * step]
        lanes = lanes.reshape(*lanes.shape[:2], len(part), step)[..., :tile]
        lanes += (part * weights[group][:, None, None, :]).swapaxes(0, 1).swapaxes(1, 2)


def to_grey(total: Any) -> Any:
    """Sums of weighted predictions back to grey levels 0..255, rounded."""
    grey = total + HALF
    grey >>= SHIFT
    return grey
