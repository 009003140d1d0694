"""Small pictures as WebP, transparent where they are invalid; PNG where GDAL has no WebP."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile


@dataclass(frozen=True)
class Picture:
    """An encoded picture: its bytes, their media type, and its size in pixels."""

    data: bytes
    media: str
    height: int
    width: int


def encode_picture(
    rgb: NDArray[np.uint8],
    valid: NDArray[np.bool_] | None = None,
    *,
    alpha: NDArray[np.uint8] | None = None,
    quality: int | None = None,
) -> Picture:
    """Encodes (height, width, 3) uint8; lossless without a ``quality`` (1 to 100).

    ``valid`` (height, width) or ``alpha``, the same in 0 to 255, say what shows.
    """
    if alpha is None and valid is not None and not valid.all():
        alpha = np.where(valid, 255, 0).astype(np.uint8)
    bands = list(rgb.transpose(2, 0, 1)) + ([] if alpha is None else [alpha])
    with rasterio.Env() as env:
        driver = "WEBP" if "WEBP" in env.drivers() else "PNG"
    options: dict[str, object] = {}
    if driver == "WEBP":
        options = {"LOSSLESS": "YES"} if quality is None else {"QUALITY": quality}
    height, width = rgb.shape[:2]
    with warnings.catch_warnings():
        # A picture has no place on earth, and needs none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": driver, "count": len(bands), "dtype": "uint8", **options}
        with MemoryFile(ext=f".{driver.lower()}") as memory:
            with memory.open(**profile, height=height, width=width) as dst:
                dst.write(np.stack(bands))
                if alpha is not None and driver == "PNG":
                    dst.colorinterp = [*dst.colorinterp[:3], ColorInterp.alpha]
            data = bytes(memory.getbuffer())
    return Picture(data, f"image/{driver.lower()}", height, width)


def encode_within(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_] | None, limit_bytes: int, *, crisp: bool
) -> Picture:
    """A picture of at most so many bytes: lossless for maps if that fits, else coarser, smaller.

    Args:
        rgb: (height, width, 3) uint8.
        valid: (height, width), what shows; None for all.
        limit_bytes: of the encoded picture.
        crisp: try lossless first.
    """
    for quality in (None, 85, 70, 55, 40) if crisp else (80, 65, 50, 35):
        picture = encode_picture(rgb, valid, quality=quality)
        if len(picture.data) <= limit_bytes:
            return picture
    if min(rgb.shape[:2]) < 2:
        return picture
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    quads = rgb[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    smaller = np.rint(quads.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    kept = None if valid is None else valid[: 2 * height : 2, : 2 * width : 2]
    return encode_within(smaller, kept, limit_bytes, crisp=crisp)
