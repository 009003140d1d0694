"""What stands in for masked pixels before the network sees a tile.

The network must never see nodata as black: the jump would leak into valid pixels beside it. Each
tile is filled from its own valid pixels alone, so the result cannot depend on blocks or strips.
Push-pull on an image pyramid (Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4.3):
means of valid pixels go up the pyramid, and holes take their value from the finest level that
knows one.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.uint8)


def fill_invalid(
    tiles: NDArray[np.uint8], valid: NDArray[np.bool_], mean: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Tiles with their invalid pixels replaced; valid pixels keep their value bit for bit.

    Args:
        tiles: (n, tile, tile, 3) uint8.
        valid: (n, tile, tile) bool.
        mean: colour for a tile without any valid pixel, the raster's mean.

    Returns:
        (n, tile, tile, 3) uint8; the same array when nothing had to be filled.
    """
    holed = np.flatnonzero(~valid.all(axis=(1, 2)))
    if not len(holed):
        return tiles
    filled = tiles.copy()
    for index in holed:
        filled[index] = _drawn_out(tiles[index], valid[index], np.asarray(mean, np.float32))
    return filled


def _drawn_out(
    tile: NDArray[np.uint8], known: NDArray[np.bool_], mean: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """What a tile shows where it is known, drawn out over the rest; the same size."""
    size = len(tile)
    if size == 1:
        return np.rint(mean).astype(np.uint8)
    # Each level of the pyramid has half the side of the one below: a tile whose side is no power
    # of two lies in the corner of one whose side is, and what is added counts as not known.
    beyond = (1 << (size - 1).bit_length()) - size
    if beyond:
        tile = np.pad(tile, ((0, beyond), (0, beyond), (0, 0)))
        known = np.pad(known, (0, beyond))
    bands = np.ascontiguousarray(tile.transpose(2, 0, 1))  # so that numpy's loops are long
    smooth = np.rint(_double(_pull(_push(bands * known, known), mean))).astype(np.uint8)
    return np.where(known, bands, smooth).transpose(1, 2, 0)[:size, :size]


Level = tuple[NDArray[np.float32], NDArray[np.bool_]]


def _push(bands: NDArray[np.uint8], known: NDArray[np.bool_]) -> list[Level]:
    """Pyramid of means over valid pixels, from half the size down to 1 x 1.

    Args:
        bands: (3, s, s) uint8, 0 where it is not known.
        known: (s, s) bool.
    """
    levels: list[Level] = []
    colour, valid = bands.astype(np.float32), known
    while len(valid) > 1:
        count = _fours(valid.astype(np.uint8))
        valid = count > 0
        colour = np.divide(_fours(colour), np.maximum(count, 1), dtype=np.float32)
        levels.append((colour, valid))
    return levels


def _fours(values: NDArray[_Number]) -> NDArray[_Number]:
    """Sums of each 2 x 2, (..., s, s) to (..., s / 2, s / 2), always added in the same order."""
    rows = values[..., 0::2, :] + values[..., 1::2, :]
    return rows[..., 0::2] + rows[..., 1::2]


def _pull(levels: list[Level], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fills each level's holes from the next coarser one, smoothed, up to the finest of them."""
    colour, valid = levels.pop()
    colour = np.where(valid, colour, mean[:, None, None])
    while levels:
        finer, valid = levels.pop()
        colour = _double(colour)
        np.copyto(colour, finer, where=valid)
    return colour


def _double(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice the size by bilinear interpolation, edges repeated: (3, s, s) to (3, 2s, 2s)."""
    for axis in (1, 2):
        colour = _double_along(axis, colour)
    return colour


def _double_along(axis: int, colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each pixel two: a quarter of a step before it, and a quarter after."""
    shape = [side * (2 if at == axis else 1) for at, side in enumerate(colour.shape)]
    doubled = np.empty(shape, np.float32)
    most = np.moveaxis(np.float32(0.75) * colour, axis, 0)
    some = np.moveaxis(np.float32(0.25) * colour, axis, 0)
    out = np.moveaxis(doubled, axis, 0)
    before, after = out[0::2], out[1::2]
    np.add(most[1:], some[:-1], out=before[1:])
    np.add(most[:-1], some[1:], out=after[:-1])
    np.add(most[0], some[0], out=before[0])
    np.add(most[-1], some[-1], out=after[-1])
    return doubled
