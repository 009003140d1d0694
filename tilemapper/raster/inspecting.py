"""Looking at a raster once, before a run: bands, limits, grid, colour of what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError
from tilemapper.raster.aoi import lay_on_pixels, read_polygons
from tilemapper.raster.bands import Bands, choose_bands
from tilemapper.raster.drivers import check_drivers
from tilemapper.raster.identity import identity_of
from tilemapper.raster.opening import forget, open_raster, read_options
from tilemapper.raster.pixels import Pixels
from tilemapper.raster.placing import Grid, output_grid
from tilemapper.raster.sampling import sample_values
from tilemapper.raster.scaling import percentile_limits
from tilemapper.raster.secrets import redacted
from tilemapper.raster.spec import SourceOptions, SourceSpec
from tilemapper.raster.tone import Tone, apply_tone, tone_between, tone_table

_GREY = (128, 128, 128)


@dataclass(frozen=True)
class _Look:
    """What a sample of the pixels says; fields as in `SourceSpec`."""

    alpha: tuple[int, float] | None
    scale: tuple[tuple[float, float], ...] | None
    fill: tuple[int, int, int]
    tone: Tone | None
    notices: tuple[str, ...]


def inspect_source(path: str, options: SourceOptions, model_gsd_m: float | None) -> SourceSpec:
    """What a run needs to know of a raster; reads some pixels, at a bounded cost.

    model_gsd_m: ground metres a pixel spans in the model's training imagery, None if any will do.

    Raises:
        RasterError: the raster cannot be presented as red, green and blue.
        OptionError: an option does not fit this raster, or this GDAL.
    """
    check_drivers(options.allow_drivers)
    forget(path)
    with (
        rasterio.Env(**read_options(path)),
        open_raster(path, allow_drivers=options.allow_drivers) as src,
    ):
        bands = choose_bands(src, path, options)
        grid = output_grid(src, path, options, model_gsd_m)
        aoi = _aoi(path, options.mask, grid)
        look = _look(src, path, options, bands)
        return SourceSpec(
            path=path,
            driver=src.driver,
            identity=identity_of(path, src),
            height=grid.height,
            width=grid.width,
            transform=tuple(grid.transform)[:6],
            crs_wkt=None if grid.crs is None else grid.crs.to_wkt(),
            gsd_m=grid.gsd_m,
            bidx=bands.bidx,
            palette=bands.palette,
            nodata=bands.nodata,
            mask=bands.mask,
            alpha=look.alpha,
            scale=look.scale,
            warp=grid.warp,
            crop=grid.crop,
            aoi=aoi,
            fill=look.fill,
            has_invalid=_has_invalid(src, bands),
            tone=look.tone,
            notices=tuple(
                redacted(line, path) for line in (*bands.notices, *grid.notices, *look.notices)
            ),
        )


def _look(src: DatasetReader, path: str, options: SourceOptions, bands: Bands) -> _Look:
    """Takes a sample, first as stored, to know what opaque is and what becomes 0 and 255."""
    alpha = _alpha(src, path, bands.alpha)
    kept: dict[str, Any] = {
        "path": path,
        "bidx": bands.bidx,
        "palette": bands.palette,
        "nodata": bands.nodata,
        "mask": bands.mask,
        "alpha": alpha,
    }
    values = sample_values(Pixels(src, **kept))
    scale = _scale(values, options, bands, src)
    rgb = Pixels(src, scale=scale, **kept).to_rgb(values[:, None, :])
    notices = [] if values.size else [f"{path}: no valid pixel found"]
    if scale is None and not bands.palette:
        notices += _few_bits(src, path, bands)
    tone = None if options.tone is None else tone_between(rgb, options.tone)
    if tone is not None:
        rgb = apply_tone(rgb, tone_table(tone))
    return _Look(
        alpha=alpha, scale=scale, fill=_mean_colour(rgb), tone=tone, notices=tuple(notices)
    )


def _alpha(src: DatasetReader, path: str, band: int | None) -> tuple[int, float] | None:
    """The alpha band and its least valid value: half of what opaque is in this raster.

    Opaque is not the type's maximum: 255 is common in uint16, and 1 or 100 in bytes.
    """
    if band is None:
        return None
    # What is clear says nothing of it: where the sample finds nothing else, the sampler goes on
    # through the whole raster.
    seen = Pixels(
        src, path=path, bidx=(band,), palette=False, nodata=(0.0,), mask=False, alpha=None
    )
    values = sample_values(seen)
    most = float(np.max(values, initial=0))
    if most == 255:
        return band, 128.0
    return band, ((most / 2 or 0.5) if values.dtype.kind == "f" else max(1.0, most / 2))


def _scale(
    values: NDArray[np.generic], options: SourceOptions, bands: Bands, src: DatasetReader
) -> tuple[tuple[float, float], ...] | None:
    if bands.palette:
        return None
    if options.scale is not None:
        return (options.scale,) * 3
    if all(src.dtypes[band - 1] == "uint8" for band in bands.bidx):
        return None
    return (percentile_limits(values),) * 3


def _few_bits(src: DatasetReader, path: str, bands: Bands) -> list[str]:
    """A word on bytes of which a file uses but some bits: taken as they are, they are dark."""
    named = [src.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8") for band in bands.bidx]
    bits = max(int(name) if name.isdecimal() else 8 for name in named)
    if not 0 < bits < 8:
        return []
    top = 2**bits - 1
    return [
        f"{path}: pixels of {bits} bit(s) found, so that nothing is lighter than {top} of 255; "
        f"stretch them with --scale 0,{top}"
    ]


def _mean_colour(rgb: NDArray[np.uint8]) -> tuple[int, int, int]:
    if rgb.size == 0:
        return _GREY
    red, green, blue = (round(float(mean)) for mean in rgb.reshape(3, -1).mean(axis=1))
    return red, green, blue


def _has_invalid(src: DatasetReader, bands: Bands) -> bool | None:
    """False where nothing can make a pixel invalid; None where only all pixels could tell."""
    floating = any(np.dtype(src.dtypes[band - 1]).kind == "f" for band in bands.bidx)
    clear = bands.palette and any(colour[3] == 0 for colour in src.colormap(1).values())
    can_be = bands.nodata is not None or bands.mask or bands.alpha is not None or floating or clear
    return None if can_be else False


def _aoi(path: str, mask: str | None, grid: Grid) -> dict[str, Any] | None:
    """The polygons of ``--mask`` in pixels of the grid."""
    if mask is None:
        return None
    geometry, crs = read_polygons(mask)
    if grid.crs is None:
        raise RasterError(
            f"{path}: is rendered without CRS or transform, so --mask cannot be placed; "
            "georeference it, or use --bounds"
        )
    return lay_on_pixels(
        geometry,
        crs,
        path=mask,
        transform=grid.transform,
        grid_crs=grid.crs,
        height=grid.height,
        width=grid.width,
    )
