"""Small pictures as PNG."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from tilemapper.raster.atomic import write_bytes_atomic


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """An image of (height, width, 3) uint8 as the bytes of a PNG file."""
    height, width = image.shape[:2]
    with warnings.catch_warnings():
        # A picture has no place on earth, and needs none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(ext=".png") as memory:
            profile = {"driver": "PNG", "count": 3, "dtype": "uint8"}
            with memory.open(**profile, height=height, width=width) as dst:
                dst.write(image.transpose(2, 0, 1))
            return bytes(memory.getbuffer())


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes an image of (height, width, 3) uint8; the file appears whole or not at all.

    Raises:
        DiskFullError, TargetError: it cannot be written.
    """
    write_bytes_atomic(path, png_bytes(image))
