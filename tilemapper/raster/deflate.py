"""File blocks as DEFLATE streams, the way TIFF stores them, by Intel's ISA-L and zlib.

At the fast levels ISA-L compresses what a generator paints in full colour three to four times as
fast as the zlib inside GDAL, to the same size; the encoder is what a GPU waits for otherwise. Flat
maps it leaves a sixth larger than GDAL does: they go through zlib, which is quick with them. Slow
levels, asked for by ``--co LEVEL=``, are zlib's own.
"""

from __future__ import annotations

import zlib

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from tilemapper.errors import StagingError

FASTEST, SLOWEST = 2, 9
# ISA-L's level 1 is no faster than its 2 and leaves 2 % more.
_ISAL_LEVEL = 2
# Flat is what shrinks to an eighth. Level 4 is the first of zlib's that is as small as GDAL's 1.
_FLAT, _FLAT_LEVEL = 8, 4


def deflate_blocks(
    pixels: NDArray[np.uint8], *, side: int, level: int, predictor: bool
) -> list[bytes]:
    """Encodes one row of file blocks, left to right, each as one zlib stream.

    Args:
        pixels: (bands, side, width) uint8, width a multiple of ``side``.
        side: height and width of a file block in pixels.
        level: 1 (fast) to 9 (small).
        predictor: store differences along rows (TIFF predictor 2) instead of values.

    Raises:
        StagingError: a stream does not decode to what went in.
    """
    encoded = []
    for col in range(0, pixels.shape[2], side):
        block = np.ascontiguousarray(np.moveaxis(pixels[:, :, col : col + side], 0, 2))
        encoded.append(_deflate((_differences(block) if predictor else block).tobytes(), level))
    return encoded


def _differences(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every pixel minus its left neighbour, (height, width, bands): TIFF 6.0, section 14."""
    steps = np.empty_like(block)
    steps[:, 0] = block[:, 0]
    np.subtract(block[:, 1:], block[:, :-1], out=steps[:, 1:])
    return steps


def _deflate(data: bytes, level: int) -> bytes:
    if level > FASTEST:
        stream = zlib.compress(data, level)
    else:
        stream = isal_zlib.compress(data, _ISAL_LEVEL)
        if len(stream) * _FLAT < len(data):
            stream = zlib.compress(data, _FLAT_LEVEL)
    if isal_zlib.decompress(stream, bufsize=len(data)) != data:
        raise StagingError(
            "encoder: the encoded pixels do not decode to what was rendered; check this machine's "
            "memory, and run the same command again"
        )
    return stream
