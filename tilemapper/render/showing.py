"""A finished render as a notebook shows it: source and map under one slider, and its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from tilemapper import notebook
from tilemapper.errors import RasterError
from tilemapper.raster.jpeg import jpeg_bytes
from tilemapper.raster.opening import open_raster
from tilemapper.raster.pixels import Pixels
from tilemapper.raster.spec import SourceSpec
from tilemapper.raster.tone import apply_tone, tone_table

SIDE = 512  # of each picture: two of them stay below half a megabyte, whatever they show
# A larger source without overviews would have to be read whole for a small picture.
MOST_PIXELS = 100_000_000


def swipe_of(spec: SourceSpec, target: str | Path, *, caption: str) -> str:
    """HTML of a render's source and map; empty when either cannot be read quickly, or at all."""
    shrink = max(1.0, max(spec.height, spec.width) / SIDE)
    shape = (max(1, round(spec.height / shrink)), max(1, round(spec.width / shrink)))
    try:
        with rasterio.Env():
            rendered, valid = _small_map(target, shape)
            source = _small_source(spec, shape)
    except (RasterError, RasterioError, OSError):
        return ""
    if source is None:
        return ""
    pictures = [
        jpeg_bytes(np.where(valid[..., None], rgb, np.uint8(255))) for rgb in (source, rendered)
    ]
    return notebook.swipe(
        pictures[0], pictures[1], names=("satellite", "map"), caption=caption, width=shape[1]
    )


def _small_map(
    target: str | Path, shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The map from its overviews, (h, w, 3) uint8, and its validity."""
    with open_raster(str(target)) as dst:
        rgb = dst.read((1, 2, 3), out_shape=(3, *shape), resampling=Resampling.average)
        return rgb.transpose(1, 2, 0), dst.dataset_mask(out_shape=shape) > 0


def _small_source(spec: SourceSpec, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """What the generator saw, (h, w, 3) uint8; None if that would take long."""
    down, across = (spec.warp.row_step, spec.warp.col_step) if spec.warp else (1.0, 1.0)
    window = Window(
        col_off=spec.crop[1] * across,
        row_off=spec.crop[0] * down,
        width=spec.width * across,
        height=spec.height * down,
    )
    with open_raster(spec.path, allow_drivers=(spec.driver,)) as src:
        if window.width * window.height > MOST_PIXELS and not src.overviews(1):
            return None
        method = Resampling.nearest if spec.palette else Resampling.average
        bands = src.read(
            list(spec.bidx), window=window, out_shape=(len(spec.bidx), *shape), resampling=method
        )
        pixels = Pixels(
            src,
            path=spec.path,
            bidx=spec.bidx,
            palette=spec.palette,
            nodata=None,
            mask=False,
            alpha=None,
            scale=spec.scale,
        )
        rgb = pixels.to_rgb(bands)
    if spec.tone is not None:
        rgb = apply_tone(rgb, tone_table(spec.tone))
    return np.moveaxis(rgb, 0, 2)
