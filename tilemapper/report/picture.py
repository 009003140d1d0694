"""A picture of a raster beside its map, for a page: ``python -m … SRC DST OUT.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.opening import open_raster
from tilemapper.raster.png import write_png

HEIGHT = 640
GAP = 8


def quicklook(path: str, height: int = HEIGHT) -> NDArray[np.uint8]:
    """The first three bands of an 8-bit raster from its overviews, (height, width, 3) uint8."""
    with open_raster(path) as src:
        height = min(height, src.height)
        shape = (3, height, max(1, round(src.width * height / src.height)))
        return np.ascontiguousarray(src.read((1, 2, 3), out_shape=shape).transpose(1, 2, 0))


def side_by_side(source: str, target: str) -> NDArray[np.uint8]:
    """Satellite left, map right, a white gap between."""
    return beside(quicklook(source), quicklook(target))


def beside(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two pictures side by side, a white gap between; the lower one's height is kept."""
    height = min(len(left), len(right))
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([left[:height], gap, right[:height]], axis=1)


if __name__ == "__main__":
    write_png(Path(sys.argv[3]), side_by_side(sys.argv[1], sys.argv[2]))
