"""What stands in for masked pixels before the network sees a tile.

The network must never see nodata as black: the jump would leak into valid pixels beside it. Each
tile is filled from its own valid pixels alone, so the result cannot depend on blocks or strips.
Push-pull on an image pyramid (Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4.3):
means of valid pixels go up the pyramid, and holes take their value from the finest level that
knows one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
        known = valid[index]
        smooth = _smooth(tiles[index], known, np.asarray(mean, np.float32))
        filled[index] = np.where(known[..., None], tiles[index], smooth)
    return filled


def _smooth(
    tile: NDArray[np.uint8], known: NDArray[np.bool_], mean: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """What a tile shows where it is known, drawn out over the rest; the same size."""
    size = len(tile)
    # Each level of the pyramid has half the side of the one below: a tile whose side is no power
    # of two lies in the corner of one whose side is, and what is added counts as not known.
    beyond = (1 << (size - 1).bit_length()) - size
    if beyond:
        tile = np.pad(tile, ((0, beyond), (0, beyond), (0, 0)))
        known = np.pad(known, (0, beyond))
    return _pull(_push(tile, known), mean)[:size, :size]


Level = tuple[NDArray[np.float32], NDArray[np.bool_]]


def _push(tile: NDArray[np.uint8], known: NDArray[np.bool_]) -> list[Level]:
    """Pyramid of means over valid pixels, finest first, down to 1 x 1."""
    levels: list[Level] = [(tile.astype(np.float32) * known[..., None], known)]
    while levels[-1][1].shape[0] > 1:
        colour, valid = levels[-1]
        half = valid.shape[0] // 2
        count = valid.reshape(half, 2, half, 2).sum(axis=(1, 3), dtype=np.float32)
        total = colour.reshape(half, 2, half, 2, 3).sum(axis=(1, 3))
        levels.append((total / np.maximum(count, 1)[..., None], count > 0))
    return levels


def _pull(levels: list[Level], mean: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Fills each level's holes from the next coarser one, smoothed, back down to full size."""
    colour, valid = levels.pop()
    colour = np.where(valid[..., None], colour, mean)
    while levels:
        finer, valid = levels.pop()
        colour = np.where(valid[..., None], finer, _double(colour))
    return np.rint(colour).clip(0, 255).astype(np.uint8)


def _double(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice the size by bilinear interpolation, edges repeated: (s, s, 3) to (2s, 2s, 3)."""
    for axis in (0, 1):
        padded = np.pad(colour, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        middle = np.take(padded, range(1, padded.shape[axis] - 1), axis)
        before = np.take(padded, range(padded.shape[axis] - 2), axis)
        after = np.take(padded, range(2, padded.shape[axis]), axis)
        pair = np.stack([0.75 * middle + 0.25 * before, 0.75 * middle + 0.25 * after], axis + 1)
        shape = list(colour.shape)
        shape[axis] *= 2
        colour = pair.reshape(shape).astype(np.float32)
    return colour
