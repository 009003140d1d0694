"""Where the output grid lies: the raster's own place, resampled, then cut to ``--bounds``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError
from tilemapper.raster.control import place_by_control_points
from tilemapper.raster.geometry import shifted, stretched, to_ground, to_pixels
from tilemapper.raster.gsd import output_size, pixel_size_m, wanted_steps
from tilemapper.raster.spec import SourceOptions, Warp


@dataclass(frozen=True)
class Grid:
    """The output grid; fields as in `SourceSpec`."""

    height: int
    width: int
    transform: Affine
    crs: CRS | None
    gsd_m: float | None
    warp: Warp | None
    crop: tuple[int, int]
    notices: tuple[str, ...]


def output_grid(
    src: DatasetReader, path: str, options: SourceOptions, model_gsd_m: float | None
) -> Grid:
    """The grid that a run writes.

    Resampling keeps the first corner, the directions of the axes and the CRS: in degrees, too, a
    pixel comes to span the metres that the model wants, along both axes, at the raster's centre.

    Raises:
        RasterError: the transform is singular or not finite; only RPCs or bent control points
            place the raster; it is far too coarse; or the bounds lie beside it.
        OptionError: metres are asked of a raster without georeferencing.
    """
    transform, crs, notices = _place(src, path, options)
    size_m = pixel_size_m(transform, crs, src.height, src.width)
    if size_m is None and crs is not None:
        notices.append(f"{path}: no metres can be told of its CRS; rendered at its own pixels")
    gsd_m = None if size_m is None else math.sqrt(size_m[0] * size_m[1])
    steps = wanted_steps(path, size_m, options.gsd, model_gsd_m)
    height, width, warp = src.height, src.width, None
    if steps is not None and size_m is not None:
        height, width = output_size(path, height, width, steps)
        transform = stretched(transform, rows=steps[0], cols=steps[1])
        gsd_m = math.sqrt(size_m[0] * steps[0] * size_m[1] * steps[1])
        warp = Warp(row_step=steps[0], col_step=steps[1])
        notices.append(
            f"{path}: resampled from {_metres(size_m)} to {gsd_m:.4g} m a pixel, "
            f"{src.width} x {src.height} to {width} x {height} px"
        )
    crop = (0, 0)
    if options.bounds is not None:
        crop, height, width = _crop(path, transform, height, width, options.bounds)
        transform = shifted(transform, row=crop[0], col=crop[1])
    return Grid(height, width, transform, crs, gsd_m, warp, crop, tuple(notices))


def _place(
    src: DatasetReader, path: str, options: SourceOptions
) -> tuple[Affine, CRS | None, list[str]]:
    """Transform and CRS of the file's pixels, and what is to be said about them."""
    if not src.transform.is_identity:
        if not all(map(math.isfinite, src.transform)) or src.transform.is_degenerate:
            raise RasterError(
                f"{path}: its transform {tuple(src.transform)[:6]} puts all pixels in one line, or "
                "nowhere; correct it with gdal_edit.py -a_ullr, or drop it with -unsetgt"
            )
        if src.crs is None:
            return src.transform, None, [f"{path}: no CRS found; rendered at its own pixels"]
        return src.transform, src.crs, []
    if options.gsd != "native":
        placed = place_by_control_points(src, path)
        if placed is not None:
            return *placed, [f"{path}: placed by its {len(src.gcps[0])} control points"]
        if src.rpcs is not None:
            raise RasterError(
                f"{path}: only RPCs place it on the ground, a map grid is needed; orthorectify it "
                "with gdalwarp -rpc -to RPC_DEM=dem.tif -t_srs EPSG:... IN OUT.tif, or ignore "
                "them with --gsd native"
            )
    told = f"{path}: no georeferencing found; rendered at its own pixels, the output has none"
    return src.transform, None, [told]


def _crop(
    path: str,
    transform: Affine,
    height: int,
    width: int,
    bounds: tuple[float, float, float, float],
) -> tuple[tuple[int, int], int, int]:
    """First row and column, height and width of the whole pixels that the bounds touch."""
    left, bottom, right, top = bounds
    corners = [to_pixels(transform, x=x, y=y) for x in (left, right) for y in (bottom, top)]
    # A hair inside, so that bounds taken from the raster itself add no pixel by rounding.
    first_row, first_col = (math.floor(min(c[i] for c in corners) + 1e-6) for i in (0, 1))
    end_row, end_col = (math.ceil(max(c[i] for c in corners) - 1e-6) for i in (0, 1))
    first_row, first_col = max(0, first_row), max(0, first_col)
    end_row, end_col = min(height, end_row), min(width, end_col)
    if first_row >= end_row or first_col >= end_col:
        ends = [to_ground(transform, row=r, col=c) for c in (0, width) for r in (0, height)]
        xs, ys = zip(*ends, strict=True)
        raise RasterError(
            f"{path}: --bounds {left:.10g},{bottom:.10g},{right:.10g},{top:.10g} lie beside the "
            f"raster, which spans {min(xs):.10g},{min(ys):.10g},{max(xs):.10g},{max(ys):.10g}; "
            "give them in its CRS"
        )
    return (first_row, first_col), end_row - first_row, end_col - first_col


def _metres(size_m: tuple[float, float]) -> str:
    if abs(size_m[0] - size_m[1]) <= 0.01 * max(size_m):
        return f"{math.sqrt(size_m[0] * size_m[1]):.4g} m"
    return f"{size_m[1]:.4g} x {size_m[0]:.4g} m"
