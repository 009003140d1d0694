"""Rasters that only control points place on the ground: warped onto a grid of their own."""

from __future__ import annotations

import warnings

from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

from tilemapper.errors import RasterError

Grid = tuple[int, int, tuple[float, ...]]


def control_grid(src: DatasetReader, path: str) -> tuple[Grid, CRS] | None:
    """Grid (height, width, transform a..f) and CRS for a raster with control points alone.

    None if the raster has a transform, or no control points with a CRS.

    Raises:
        RasterError: the points make no sense.
    """
    points, crs = src.gcps
    if not src.transform.is_identity or not points or crs is None:
        return None
    try:
        transform, width, height = calculate_default_transform(
            crs, crs, src.width, src.height, gcps=points
        )
    except (RasterioError, ValueError) as error:
        raise RasterError(
            f"{path}: its {len(points)} control points make no grid ({error}); warp it with "
            "gdalwarp -tps, or use --gsd native to ignore them"
        ) from error
    if not 0 < width * height <= 64 * src.width * src.height:
        raise RasterError(
            f"{path}: its control points would make {height} x {width} px of "
            f"{src.height} x {src.width}; warp it with gdalwarp -tps, or use --gsd native"
        )
    return (height, width, tuple(transform)[:6]), crs


def warp_to_grid(src: DatasetReader, path: str, grid: Grid, *, palette: bool) -> WarpedVRT:
    """The raster on that grid, with an alpha band where it has none.

    Raises:
        RasterError: GDAL refuses.
    """
    height, width, transform = grid
    crs = src.gcps[1]
    has_alpha = ColorInterp.alpha in src.colorinterp
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return WarpedVRT(
                src,
                crs=crs,
                transform=Affine(*transform),
                height=height,
                width=width,
                # Mixed palette indexes would be other colours.
                resampling=Resampling.nearest if palette else Resampling.bilinear,
                add_alpha=not has_alpha,
                # Every pixel's position is computed, and the kernel is the same in all windows.
                tolerance=0,
                warp_extras={"XSCALE": "1", "YSCALE": "1"},
            )
    except (RasterioError, ValueError) as error:
        raise RasterError(
            f"{path}: cannot be warped through its control points ({error}); warp it with "
            "gdalwarp -tps"
        ) from error
