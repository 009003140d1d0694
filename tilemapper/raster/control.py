"""Rasters that only control points place on the ground."""

from __future__ import annotations

import math

from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps

from tilemapper.errors import RasterError
from tilemapper.raster.geometry import to_pixels
from tilemapper.raster.opening import GDAL_ERRORS

MAX_MISFIT_PIXELS = 0.5


def place_by_control_points(src: DatasetReader, path: str) -> tuple[Affine, CRS] | None:
    """The transform that control points amount to, rotation and shear included, and their CRS.

    None if the raster has a transform, or no control points with a CRS. No pixel is moved: points
    that no plane fits need a warp with a choice of method, which is GDAL's business.

    Raises:
        RasterError: the best plane misses a point by more than half a pixel.
    """
    points, crs = src.gcps
    if not src.transform.is_identity or not points or crs is None:
        return None
    way_out = (
        "warp it first with gdalwarp -tps -t_srs EPSG:... IN OUT.tif, or ignore them with "
        "--gsd native"
    )
    try:
        transform = from_gcps(points)
    except GDAL_ERRORS as error:
        raise RasterError(
            f"{path}: {len(points)} control points found, which make no grid; {way_out}"
        ) from error
    misfit = math.inf
    if not transform.is_degenerate:
        places = [to_pixels(transform, x=point.x, y=point.y) for point in points]
        misfit = max(
            math.hypot(row - point.row, col - point.col)
            for (row, col), point in zip(places, points, strict=True)
        )
    if not misfit <= MAX_MISFIT_PIXELS:
        raise RasterError(
            f"{path}: only {len(points)} control points place it, and a plane misses them by "
            f"{misfit:.3g} px; {way_out}"
        )
    return transform, crs
