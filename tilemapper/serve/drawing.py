"""One XYZ tile from windows of a grid, so that nothing shows where tiles meet.

What a pixel of a tile gets depends on its place alone, never on the tile: pixels are averaged in
groups counted from the grid's corner, and sampled from these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.serve.exporting import png_chunks
from tilemapper.serve.frame import SIDE, Places

Window = tuple[NDArray[np.uint8], NDArray[np.bool_]]
# (row, col, height, width) to (height, width, 3) uint8 and what is kept, (height, width) bool.
Reader = Callable[[int, int, int, int], Window]


def group_of(step: float) -> int:
    """Pixels of the grid that are averaged along each axis where a tile's pixel spans ``step``."""
    return max(1, round(step))


def draw(
    read: Reader, places: Places, *, height: int, width: int, step: float, smooth: bool
) -> NDArray[np.uint8] | None:
    """A tile as (256, 256, 4) uint8 RGBA, transparent beside the raster; None if empty.

    Args:
        read: gives windows of the grid.
        height: of the grid.
        width: of the grid.
        places: row and column that each pixel shows; see `tilemapper.serve.frame`.
        step: pixels of the grid that a tile's pixel spans.
        smooth: interpolate between pixels that are not averaged; class colours must not mix.
    """
    rows, cols = places
    with np.errstate(invalid="ignore"):  # NaN lies nowhere
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    if not inside.any():
        return None
    # Far out, a pixel of the tile spans more than all of the grid.
    group = min(group_of(step), max(height, width))
    shape = -(-height // group), -(-width // group)
    down = np.where(inside, rows, rows[inside][0]) / group
    across = np.where(inside, cols, cols[inside][0]) / group
    if smooth or group > 1:
        down, across = down - 0.5, across - 0.5
    top, left = int(max(np.floor(down.min()), 0)), int(max(np.floor(across.min()), 0))
    end = min(int(np.floor(down.max())) + 2, shape[0])
    right = min(int(np.floor(across.max())) + 2, shape[1])
    row, col = top * group, left * group
    rgb, keep = read(row, col, min(end * group, height) - row, min(right * group, width) - col)
    colours, shown = averaged(rgb, keep, group)
    sample = _between if smooth or group > 1 else _nearest
    tile, visible = sample(colours, shown, down - top, across - left)
    alpha = np.where(inside & visible, 255, 0).astype(np.uint8)
    if not alpha.any():
        return None
    return np.dstack([np.where(alpha[..., None] > 0, tile, 0).astype(np.uint8), alpha])


def averaged(rgb: NDArray[np.uint8], keep: NDArray[np.bool_], group: int) -> Window:
    """Mean of the kept pixels of each group; a group is kept if half of its pixels are."""
    if group == 1:
        return np.ascontiguousarray(rgb), keep
    counted = [_group_sizes(size, group) for size in keep.shape]
    possible = np.multiply.outer(*counted)
    whole = bool(keep.all())
    count = possible if whole else _sums(keep.view(np.uint8), group)
    share = np.maximum(count, 1)
    mean = np.empty((*count.shape, 3), np.uint8)
    for band in range(3):
        plane = rgb[..., band] if whole else rgb[..., band] * keep
        mean[..., band] = (2 * _sums(plane, group) + share) // (2 * share)
    return mean, 2 * count >= possible


def _group_sizes(size: int, group: int) -> NDArray[np.uint32]:
    """Pixels in each group along an axis: the last may hold fewer."""
    sizes = np.full(-(-size // group), group, np.uint32)
    sizes[-1] = size - (len(sizes) - 1) * group
    return sizes


def _sums(plane: NDArray[np.uint8], group: int) -> NDArray[Any]:
    """Sums of a plane's groups; adding line to line is 20 times faster than over an axis."""
    lines = _added(plane, group, np.uint16 if group <= 256 else np.uint32)
    # Twice a sum must fit as well.
    return _added(lines.T, group, np.uint32 if group <= 2048 else np.uint64).T


def _added(lines: NDArray[Any], group: int, kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Each group of lines as one; the last group may have fewer."""
    sums: NDArray[Any] = lines[0::group].astype(kind)
    for line in range(1, min(group, len(lines))):
        part = lines[line::group]
        sums[: len(part)] += part
    return sums


def _nearest(
    rgb: NDArray[np.uint8],
    keep: NDArray[np.bool_],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    at = rows.astype(np.intp), cols.astype(np.intp)
    return rgb[at], keep[at]


def _between(
    rgb: NDArray[np.uint8],
    keep: NDArray[np.bool_],
    rows: NDArray[np.float64],
    cols: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Bilinear between pixel centres; pixels that are not kept weigh nothing."""
    height, width = keep.shape
    low, left = np.floor(rows).astype(np.intp), np.floor(cols).astype(np.intp)
    down, across = (rows - low).astype(np.float32), (cols - left).astype(np.float32)
    tile = np.zeros((*rows.shape, 3), np.float32)
    total = np.zeros(rows.shape, np.float32)
    for row, high in ((low, 1 - down), (low + 1, down)):
        for col, wide in ((left, 1 - across), (left + 1, across)):
            at = np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)
            weight = high * wide * keep[at]
            tile += rgb[at] * weight[..., None]
            total += weight
    tile /= np.maximum(total, 1e-6)[..., None]
    return np.rint(tile).astype(np.uint8), total >= 0.5


def png_of(tile: NDArray[np.uint8]) -> bytes:
    """(256, 256, 4) uint8 RGBA as a PNG; RGB where nothing is transparent."""
    if (tile[..., 3] == 255).all():
        tile = tile[..., :3]
    return b"".join(png_chunks([tile], SIDE, SIDE, tile.shape[2], level=1))


EMPTY_PNG = png_of(np.zeros((SIDE, SIDE, 4), np.uint8))
