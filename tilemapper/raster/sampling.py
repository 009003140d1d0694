"""A look at some pixels of a raster, at a bounded cost whatever its size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.pixels import Pixels

WHOLE_BELOW_PIXELS = 1024 * 1024
PATCHES_AN_AXIS = 6
PATCH = 192
_DECODED_PIXELS = 200_000_000


def sample_values(pixels: Pixels) -> NDArray[np.generic]:
    """Valid values, (1 or 3, n) as stored, of the raster or of up to 36 patches spread over it.

    Patches, not every k-th row and column: of a raster without overviews, those would decode
    every file block. Only if all patches are invalid is the whole raster looked through.

    Raises:
        RasterError: a patch cannot be read.
    """
    height, width = pixels.height, pixels.width
    if height * width <= WHOLE_BELOW_PIXELS:
        return _valid(pixels, 0, 0, height, width)
    block_height, block_width = pixels.src.block_shapes[0]
    # Very large file blocks are decoded for a patch each: so take fewer of them.
    patches = max(
        2, min(PATCHES_AN_AXIS, int((_DECODED_PIXELS / block_height / block_width) ** 0.5))
    )
    rows = _starts(height, block_height, patches)
    cols = _starts(width, block_width, patches)
    parts = [
        _valid(pixels, row, col, min(PATCH, height), min(PATCH, width))
        for row in rows
        for col in cols
    ]
    found = np.concatenate(parts, axis=1)
    return found if found.size else _first_valid(pixels)


def _starts(size: int, block: int, patches: int) -> list[int]:
    """Starts of patches along an axis, in file blocks' corners where those are larger."""
    patch = min(PATCH, size)
    if size <= patches * patch:
        return list(range(0, size - patch + 1, patch))
    centres = [(2 * k + 1) * size // (2 * patches) for k in range(patches)]
    starts = [centre - patch // 2 for centre in centres]
    if patch <= block < size:
        starts = [start // block * block for start in starts]
    return sorted({max(0, min(start, size - patch)) for start in starts})


def _valid(pixels: Pixels, row: int, col: int, height: int, width: int) -> NDArray[np.generic]:
    values, valid = pixels.values(row=row, col=col, height=height, width=width)
    return values.reshape(len(values), -1) if valid is None else values[:, valid]


def _first_valid(pixels: Pixels) -> NDArray[np.generic]:
    """Values of the first strips that have any, at most a million; none if all are invalid."""
    strip = max(1, min(pixels.height, 4 * WHOLE_BELOW_PIXELS // pixels.width))
    kept: list[NDArray[np.generic]] = []
    for row in range(0, pixels.height, strip):
        kept.append(_valid(pixels, row, 0, min(strip, pixels.height - row), pixels.width))
        if sum(part.shape[1] for part in kept) >= WHOLE_BELOW_PIXELS:
            break
    return np.concatenate(kept, axis=1)[:, :WHOLE_BELOW_PIXELS]
