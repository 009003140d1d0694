"""A small picture of a large raster, read in panels, from its overviews where it has some."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.pixels import Pixels

# Pixels of the file that a panel spans: two rows of its file blocks then stay in GDAL's cache, and
# no file block is decoded twice.
_PANEL_ROWS, _PANEL_COLS = 512, 4096
# Of files without overviews 2 x 2 pixels are taken for one where it stands for 16 or more: all of
# them would take four times as long to average as to decode.
_SPARSE_FROM = 4.0


def shrunk(
    pixels: Pixels,
    *,
    rows: tuple[float, float],
    cols: tuple[float, float],
    height: int,
    width: int,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A region of a file averaged to a picture.

    Args:
        pixels: the open file.
        rows: first row of the region and the one after its last, in the file's pixels; may lie
            between pixels and beyond the file.
        cols: the same of its columns.
        height: of the picture.
        width: of the picture.

    Returns:
        RGB (height, width, 3) uint8 and validity (height, width); beyond the file it is invalid.

    Raises:
        RasterError: the file cannot be read.
    """
    rgb = np.zeros((height, width, 3), np.uint8)
    valid = np.zeros((height, width), bool)
    down, across = (rows[1] - rows[0]) / height, (cols[1] - cols[0]) / width
    if not (down > 0 and across > 0):  # so far away that its pixels cannot be told apart
        return rgb, valid
    top, bottom = _inside(rows[0], down, height, pixels.height)
    left, right = _inside(cols[0], across, width, pixels.width)
    sparse = min(down, across) >= _SPARSE_FROM and not pixels.src.overviews(1)
    step = max(1, int(_PANEL_ROWS / down))
    # A file in strips is read across all of its width: a part of it would decode as much.
    strips = pixels.src.block_shapes[0][1] >= pixels.width
    wide = width if strips else max(1, int(_PANEL_COLS / across))
    for first_col in range(left, right, wide):
        for first in range(top, bottom, step):
            end, end_col = min(first + step, bottom), min(first_col + wide, right)
            here = np.s_[first:end, first_col:end_col]
            start_row = max(0.0, rows[0] + first * down)
            start_col = max(0.0, cols[0] + first_col * across)
            window: dict[str, Any] = {
                "row": start_row,
                "col": start_col,
                "height": min(pixels.height, rows[0] + end * down) - start_row,
                "width": min(pixels.width, cols[0] + end_col * across) - start_col,
            }
            rgb[here], valid[here] = _panel(
                pixels, window, end - first, end_col - first_col, sparse
            )
    return rgb, valid


def _panel(
    pixels: Pixels, window: dict[str, Any], height: int, width: int, sparse: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A window of the file as (height, width, 3) uint8 and validity (height, width)."""
    if not sparse:
        values, kept = pixels.values(**window, shape=(height, width))
        there = np.ones((height, width), bool) if kept is None else kept
        return np.moveaxis(pixels.to_rgb(values), 0, 2), there
    values, kept = pixels.values(**window, shape=(2 * height, 2 * width), average=False)
    quads = pixels.to_rgb(values).reshape(3, height, 2, width, 2)
    if kept is None or kept.all():
        there = np.ones((height, width), bool)
        total, count = quads.sum(axis=(2, 4), dtype=np.uint16), np.uint16(4)
    else:
        mask = kept.reshape(height, 2, width, 2)
        count = mask.sum(axis=(1, 3), dtype=np.uint16)
        there = count >= 2
        total = (quads * mask).sum(axis=(2, 4), dtype=np.uint16)
    mean = (total + count // 2) // np.maximum(count, 1)
    return np.moveaxis(mean, 0, 2).astype(np.uint8), there


def _inside(first: float, step: float, count: int, length: int) -> tuple[int, int]:
    """The picture's pixels whose middle lies in the file."""
    low = max(0, math.ceil(-first / step - 0.5 - 1e-9))
    high = min(count, math.floor((length - first) / step - 0.5 - 1e-9) + 1)
    return low, max(low, high)
