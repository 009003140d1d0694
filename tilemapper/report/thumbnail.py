"""A small picture of a raster, as PNG bytes, from its overviews."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from tilemapper.errors import RasterError
from tilemapper.raster.opening import open_raster


def thumbnail_png(path: str, *, side: int = 128) -> bytes | None:
    """A PNG of at most ``side`` pixels a side, white where masked; None if it cannot be read."""
    try:
        with rasterio.Env(), open_raster(path) as src:
            shrink = max(1.0, max(src.height, src.width) / side)
            shape = (max(1, round(src.height / shrink)), max(1, round(src.width / shrink)))
            bands = [1, 2, 3] if src.count >= 3 else [1, 1, 1]
            rgb = src.read(bands, out_shape=(3, *shape))
            valid = src.dataset_mask(out_shape=shape) > 0
    except (RasterError, RasterioError, OSError):
        return None
    return png(np.where(valid[..., None], rgb.transpose(1, 2, 0), 255).astype(np.uint8))


def png(rgb: NDArray[np.uint8]) -> bytes:
    """(height, width, 3) uint8 as the bytes of a PNG file."""
    height, width = rgb.shape[:2]
    # Filter type 0 before every row.
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = rgb.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
