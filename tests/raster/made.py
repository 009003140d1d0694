"""Rasters that tests make for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

UTM = "EPSG:32618"


def placed(pixel: float = 0.9, x: float = 500_000.0, y: float = 4_500_000.0) -> Affine:
    """North-up transform with square pixels."""
    return Affine(pixel, 0, x, 0, -pixel, y)


def city(height: int = 90, width: int = 130, dtype: str = "uint8", bands: int = 3) -> NDArray[Any]:
    """Smooth colours with some noise, (bands, height, width), between 20 and 230."""
    rng = np.random.default_rng(7)
    rows, cols = np.mgrid[:height, :width]
    waves = [110 + 70 * np.sin(rows / (9 + b)) * np.cos(cols / (7 + b)) for b in range(bands)]
    return (np.stack(waves) + rng.uniform(-20, 20, (bands, height, width))).astype(dtype)


def write_raster(
    path: Path,
    pixels: NDArray[Any],
    *,
    mask: NDArray[np.bool_] | None = None,
    internal_mask: bool = True,
    **profile: Any,
) -> str:
    """Writes (bands, h, w) pixels; UTM at 0.9 m unless the profile says otherwise."""
    options: dict[str, Any] = {"driver": "GTiff", "crs": UTM, "transform": placed()} | profile
    options = {key: value for key, value in options.items() if value is not None}
    descriptions = options.pop("colorinterp", None)
    colormap = options.pop("colormap", None)
    if len(pixels) >= 3 and pixels.dtype != np.uint8 and options["driver"] == "GTiff":
        options.setdefault("photometric", "RGB")
    count, height, width = pixels.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal_mask),
        rasterio.open(
            path, "w", height=height, width=width, count=count, dtype=pixels.dtype, **options
        ) as dst,
    ):
        if descriptions is not None:
            dst.colorinterp = descriptions
        if colormap is not None:
            dst.write_colormap(1, colormap)
        dst.write(pixels)
        if mask is not None:
            dst.write_mask(mask)
    return str(path)
