"""File blocks as DEFLATE streams, the way TIFF stores them, by Intel's ISA-L and zlib.

At the fast levels ISA-L compresses what a generator paints in full colour three to four times as
fast as GDAL, to the same size; the encoder is what a GPU waits for otherwise. Flat maps it leaves a
sixth larger than GDAL does: they go through zlib, which is quick with them. Slow levels, asked for
by ``--co LEVEL=``, are zlib's own.
"""

from __future__ import annotations

import zlib

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from tilemapper.errors import StagingError

FASTEST, SLOWEST = 2, 9
# ISA-L's levels are equally fast on a city's colours; 1 leaves 5 % more than GDAL, 2 3 %, 3 1.6 %.
_ISAL_LEVEL = 3
# Flat is what mostly repeats its left neighbour: of a map and its first overview 2 to 25 % of the
# values are new, 85 to 94 % of a city. In between zlib would need seven times as long for 10 %.
_FLAT = 0.3
_FLAT_LEVEL = 4  # the first of zlib's that is as small as GDAL's 1


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
        steps = differences(block)
        flat = bool(np.count_nonzero(steps) < _FLAT * steps.size)
        encoded.append(_deflate((steps if predictor else block).tobytes(), level, flat=flat))
    return encoded


def differences(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every pixel minus its left neighbour, (height, width, bands): TIFF 6.0, section 14."""
    steps = np.empty_like(block)
    steps[:, 0] = block[:, 0]
    np.subtract(block[:, 1:], block[:, :-1], out=steps[:, 1:])
    return steps


def _deflate(data: bytes, level: int, *, flat: bool) -> bytes:
    if level > FASTEST:
        stream = zlib.compress(data, level)
    elif flat:
        stream = zlib.compress(data, _FLAT_LEVEL)
    else:
        stream = isal_zlib.compress(data, _ISAL_LEVEL)
    if isal_zlib.decompress(stream, bufsize=len(data)) != data:
        raise StagingError(
            "encoder: the encoded pixels do not decode to what was rendered; check this machine's "
            "memory, and run the same command again"
        )
    return stream
