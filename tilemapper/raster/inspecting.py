"""Looking at a raster once, before a run: bands, limits, grid, colour of what is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError
from tilemapper.raster.aoi import check_overlap, lay_on_pixels, read_polygons
from tilemapper.raster.bands import Bands, choose_bands
from tilemapper.raster.control import Grid, control_grid, warp_to_grid
from tilemapper.raster.geometry import shifted, stretched, to_ground, to_pixels
from tilemapper.raster.gsd import output_size, pixel_size_m, wanted_steps
from tilemapper.raster.identity import identity_of
from tilemapper.raster.opening import open_raster
from tilemapper.raster.pixels import Pixels
from tilemapper.raster.sampling import sample_values
from tilemapper.raster.scaling import percentile_limits
from tilemapper.raster.spec import SourceOptions, SourceSpec, Warp

_GREY = (128, 128, 128)


@dataclass(frozen=True)
class _Placed:
    """A grid on the ground: the file's own, or that of its control points."""

    height: int
    width: int
    transform: Affine
    crs: CRS | None
    control: Grid | None


def inspect_source(path: str, options: SourceOptions, model_gsd_m: float | None) -> SourceSpec:
    """What a run needs to know of a raster; reads some pixels, at a bounded cost.

    model_gsd_m: ground metres a pixel spans in the model's training imagery, None if any will do.

    Raises:
        RasterError: the raster cannot be presented as red, green and blue.
        OptionError: an option does not fit this raster.
    """
    with open_raster(path, allow_drivers=options.allow_drivers) as src:
        bands = choose_bands(src, path, options)
        placed, notices = _place(src, path, options)
        alpha, scale, fill, found = _look(src, path, options, bands, placed)
        if not found:
            notices.append(f"{path}: no valid pixel found")
        size_m = pixel_size_m(placed.transform, placed.crs, placed.height, placed.width)
        steps = wanted_steps(path, size_m, options.gsd, model_gsd_m)
        if size_m is None and model_gsd_m is not None and placed.crs is not None:
            notices.append(f"{path}: no metres can be told of its CRS; rendered at its own pixels")
        grid = _output_grid(path, placed, steps)
        height, width, transform = grid
        crop = (0, 0)
        if options.bounds is not None:
            crop, height, width = _crop(path, grid, options.bounds)
            transform = shifted(transform, row=crop[0], col=crop[1])
        if steps is not None and size_m is not None:
            target_m = size_m[0] * steps[0]
            notices.append(
                f"{path}: resampled from {_metres(size_m)} to {target_m:.4g} m a pixel, "
                f"{placed.height} x {placed.width} to {grid[0]} x {grid[1]} px"
            )
            gsd_m: float | None = target_m
        else:
            gsd_m = None if size_m is None else math.sqrt(size_m[0] * size_m[1])
        return SourceSpec(
            path=path,
            driver=src.driver,
            identity=identity_of(path, src),
            height=height,
            width=width,
            transform=tuple(transform)[:6],
            crs_wkt=None if placed.crs is None else placed.crs.to_wkt(),
            gsd_m=gsd_m,
            bidx=bands.bidx,
            palette=bands.palette,
            nodata=bands.nodata,
            mask=bands.mask,
            alpha=alpha,
            scale=scale,
            warp=_warp(steps, placed.control),
            crop=crop,
            aoi=_aoi(path, options.mask, transform, placed.crs, height, width),
            fill=fill,
            has_invalid=_has_invalid(src, bands, alpha),
            notices=(*bands.notices, *notices),
        )


def _place(src: DatasetReader, path: str, options: SourceOptions) -> tuple[_Placed, list[str]]:
    """Where the raster lies, and what is to be said about that."""
    control = None if options.gsd == "native" else control_grid(src, path)
    if control is not None:
        (height, width, transform), crs = control
        told = f"{path}: has control points only; warped through them to {height} x {width} px"
        return _Placed(height, width, Affine(*transform), crs, control[0]), [told]
    own = _Placed(src.height, src.width, src.transform, src.crs, None)
    if not src.transform.is_identity:
        if src.crs is None:
            return own, [f"{path}: no CRS found; rendered at its own pixels"]
        return own, []
    if src.rpcs is not None and options.gsd != "native":
        raise RasterError(
            f"{path}: only RPCs place it on the ground, a map grid is needed; orthorectify it with "
            "gdalwarp -rpc -to RPC_DEM=dem.tif -t_srs EPSG:..., or ignore them with --gsd native"
        )
    own = _Placed(src.height, src.width, src.transform, None, None)
    return own, [f"{path}: no georeferencing found; rendered at its own pixels, output has none"]


def _look(
    src: DatasetReader, path: str, options: SourceOptions, bands: Bands, placed: _Placed
) -> tuple[
    tuple[int, float] | None,
    tuple[tuple[float, float], ...] | None,
    tuple[int, int, int],
    bool,
]:
    """Alpha band and threshold, scale, mean colour, and whether any pixel was valid."""
    warped = None
    alpha_band = bands.alpha
    if placed.control is not None:
        warped = warp_to_grid(src, path, placed.control, palette=bands.palette)
        alpha_band = alpha_band or src.count + 1
    try:
        on_grid = warped or src
        alpha = _alpha(on_grid, path, alpha_band)
        kept = {
            "path": path,
            "bidx": bands.bidx,
            "palette": bands.palette,
            "nodata": bands.nodata,
            "mask": bands.mask and warped is None,
        }
        plain = Pixels(on_grid, alpha=alpha, **kept)  # type: ignore[arg-type]
        values = sample_values(plain)
        scale = _scale(values, options, bands, src)
        scaled = Pixels(on_grid, alpha=alpha, scale=scale, **kept)  # type: ignore[arg-type]
        rgb = scaled.to_rgb(values[:, None, :])
        return alpha, scale, _mean_colour(rgb), values.shape[1] > 0
    finally:
        if warped is not None:
            warped.close()


def _alpha(src: DatasetReader, path: str, band: int | None) -> tuple[int, float] | None:
    """The alpha band and its least valid value: half of what opaque is in this raster.

    Opaque is not the type's maximum: 255 is common in uint16, and 1 in bytes.
    """
    if band is None:
        return None
    plain = Pixels(src, path=path, bidx=(band,), palette=False, nodata=None, mask=False, alpha=None)
    values = sample_values(plain)
    most = float(np.max(values, initial=0))
    if most <= 1:
        return band, (0.5 if values.dtype.kind == "f" else 1.0)
    return band, (128.0 if most <= 255 else most / 2)


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


def _mean_colour(rgb: NDArray[np.uint8]) -> tuple[int, int, int]:
    if rgb.size == 0:
        return _GREY
    red, green, blue = (round(float(mean)) for mean in rgb.reshape(3, -1).mean(axis=1))
    return red, green, blue


def _has_invalid(src: DatasetReader, bands: Bands, alpha: tuple[int, float] | None) -> bool | None:
    """False where nothing can make a pixel invalid; None where only all pixels could tell."""
    floating = any(np.dtype(src.dtypes[band - 1]).kind == "f" for band in bands.bidx)
    if bands.nodata is None and not bands.mask and alpha is None and not floating:
        see_through = bands.palette and any(c[3] == 0 for c in src.colormap(1).values())
        return None if see_through else False
    return None


def _output_grid(
    path: str, placed: _Placed, steps: tuple[float, float] | None
) -> tuple[int, int, Affine]:
    """Height, width and transform; resampling keeps the first corner and the directions."""
    if steps is None:
        return placed.height, placed.width, placed.transform
    height, width = output_size(path, placed.height, placed.width, steps)
    return height, width, stretched(placed.transform, rows=steps[0], cols=steps[1])


def _warp(steps: tuple[float, float] | None, control: Grid | None) -> Warp | None:
    if steps is None and control is None:
        return None
    row_step, col_step = steps or (1.0, 1.0)
    return Warp(row_step=row_step, col_step=col_step, grid=control)


def _crop(
    path: str, grid: tuple[int, int, Affine], bounds: tuple[float, float, float, float]
) -> tuple[tuple[int, int], int, int]:
    """First row and column, height and width of the whole pixels that the bounds touch."""
    height, width, transform = grid
    left, bottom, right, top = bounds
    corners = [to_pixels(transform, x=x, y=y) for x in (left, right) for y in (bottom, top)]
    # A hair inside, so that bounds taken from the raster itself add no pixel by rounding.
    first_row, first_col = (math.floor(min(c[i] for c in corners) + 1e-6) for i in (0, 1))
    end_row, end_col = (math.ceil(max(c[i] for c in corners) - 1e-6) for i in (0, 1))
    first_row, first_col = max(0, first_row), max(0, first_col)
    end_row, end_col = min(height, end_row), min(width, end_col)
    if first_row >= end_row or first_col >= end_col:
        xs, ys = zip(
            *(to_ground(transform, row=r, col=c) for c in (0, width) for r in (0, height)),
            strict=True,
        )
        raise RasterError(
            f"{path}: --bounds {left:g},{bottom:g},{right:g},{top:g} lie beside the raster, which "
            f"spans {min(xs):.10g},{min(ys):.10g},{max(xs):.10g},{max(ys):.10g}; give them in its "
            "CRS"
        )
    return (first_row, first_col), end_row - first_row, end_col - first_col


def _aoi(
    path: str, mask: str | None, transform: Affine, crs: CRS | None, height: int, width: int
) -> dict[str, object] | None:
    if mask is None:
        return None
    geometry, its_crs = read_polygons(mask)
    if crs is None:
        raise RasterError(f"{path}: has no CRS, so --mask cannot be placed; use --bounds in pixels")
    pixels = lay_on_pixels(geometry, its_crs, path=mask, transform=transform, grid_crs=crs)
    check_overlap(pixels, path=mask, height=height, width=width)
    return pixels


def _metres(size_m: tuple[float, float]) -> str:
    if abs(size_m[0] - size_m[1]) <= 0.01 * max(size_m):
        return f"{math.sqrt(size_m[0] * size_m[1]):.4g} m"
    return f"{size_m[1]:.4g} x {size_m[0]:.4g} m"
