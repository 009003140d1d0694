"""A small picture of a large raster, read in panels, from its overviews where it has some."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.pixels import Pixels

# Rows of the file that a panel spans: a row of file blocks and its neighbour stay in GDAL's cache.
_PANEL_ROWS = 1024


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
    top, bottom = _inside(rows[0], down, height, pixels.height)
    left, right = _inside(cols[0], across, width, pixels.width)
    if left >= right:
        return rgb, valid
    step = max(1, int(_PANEL_ROWS / down))
    for first in range(top, bottom, step):
        end = min(first + step, bottom)
        start_row = max(0.0, rows[0] + first * down)
        start_col = max(0.0, cols[0] + left * across)
        values, kept = pixels.values(
            row=start_row,
            col=start_col,
            height=min(pixels.height, rows[0] + end * down) - start_row,
            width=min(pixels.width, cols[0] + right * across) - start_col,
            shape=(end - first, right - left),
        )
        rgb[first:end, left:right] = np.moveaxis(pixels.to_rgb(values), 0, 2)
        valid[first:end, left:right] = True if kept is None else kept
    return rgb, valid


def _inside(first: float, step: float, count: int, length: int) -> tuple[int, int]:
    """The picture's pixels whose middle lies in the file."""
    low = max(0, math.ceil(-first / step - 0.5 - 1e-9))
    high = min(count, math.floor((length - first) / step - 0.5 - 1e-9) + 1)
    return low, max(low, high)
