"""A small picture of a raster, as PNG bytes, from its overviews."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from tilemapper.errors import RasterError
from tilemapper.raster.opening import open_raster
from tilemapper.raster.png import png_bytes


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
    return png_bytes(np.where(valid[..., None], rgb.transpose(1, 2, 0), 255).astype(np.uint8))
