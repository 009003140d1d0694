"""Small pictures as JPEG, where a page must stay small whatever they show."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile


def jpeg_bytes(image: NDArray[np.uint8], *, quality: int = 82) -> bytes:
    """An image of (height, width, 3) uint8 as the bytes of a JPEG file."""
    height, width = image.shape[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(ext=".jpg") as memory:
            profile = {"driver": "JPEG", "count": 3, "dtype": "uint8", "quality": quality}
            with memory.open(**profile, height=height, width=width) as dst:
                dst.write(image.transpose(2, 0, 1))
            return bytes(memory.getbuffer())
