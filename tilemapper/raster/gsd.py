"""How much ground a pixel covers, in metres, and how far that is from what a model wants."""

from __future__ import annotations

import math

from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from tilemapper.errors import OptionError, RasterError
from tilemapper.raster.geometry import to_ground
from tilemapper.raster.opening import GDAL_ERRORS

_A = 6378137.0  # WGS 84: semi-major axis in metres, and first eccentricity squared
_E2 = 6.69437999014e-3
AUTO_TOLERANCE = 0.10
FORCED_TOLERANCE = 0.001
SQUARE_TOLERANCE = 1.02
MAX_ENLARGEMENT = {"auto": 8.0, "forced": 64.0}
MAX_SHRINKING = 10_000  # beyond, what a pixel spans was not meant in metres
MAX_SIDE = 2_000_000


def pixel_size_m(
    transform: Affine, crs: CRS | None, height: int, width: int
) -> tuple[float, float] | None:
    """Ground metres a pixel spans along (rows, cols) at the raster's centre; None if unknown.

    Measured on the ellipsoid, so Web Mercator's stretch, feet and degrees need no cases of their
    own; where the centre has no longitude and latitude, the CRS's unit is all there is.
    """
    if crs is None or transform.is_identity or transform.is_degenerate:
        return None
    centre = to_ground(transform, row=height / 2, col=width / 2)
    along_rows, along_cols = (transform.b, transform.e), (transform.a, transform.d)
    if crs.is_geographic:
        radians = math.radians(1.0) if not crs.units_factor else crs.units_factor[1]
        north, east = _metres_a_radian(centre[1] * radians)
        return (
            math.hypot(along_rows[0] * radians * east, along_rows[1] * radians * north),
            math.hypot(along_cols[0] * radians * east, along_cols[1] * radians * north),
        )
    try:
        unit_m = float(crs.linear_units_factor[1])
    except (*GDAL_ERRORS, TypeError):
        return None
    sizes = [
        math.hypot(*step) * (_ground_scale(crs, centre, step, unit_m) or unit_m)
        for step in (along_rows, along_cols)
    ]
    return (sizes[0], sizes[1])


def _metres_a_radian(latitude: float) -> tuple[float, float]:
    """Ground metres a radian of latitude and one of longitude span there."""
    curvature = 1 - _E2 * math.sin(latitude) ** 2
    return _A * (1 - _E2) / curvature**1.5, _A / math.sqrt(curvature) * math.cos(latitude)


def _ground_scale(
    crs: CRS, centre: tuple[float, float], step: tuple[float, float], unit_m: float
) -> float | None:
    """Ground metres a unit of the CRS spans at the centre, in the direction of step."""
    # Over some 100 m: far above the rounding of PROJ's inverse, far below the Earth's curvature.
    reach = 50.0 / unit_m / math.hypot(*step)
    xs = [centre[0] - reach * step[0], centre[0] + reach * step[0]]
    ys = [centre[1] - reach * step[1], centre[1] + reach * step[1]]
    try:
        lons, lats = transform_points(crs, CRS.from_epsg(4326), xs, ys)
    except GDAL_ERRORS:
        return None
    if not all(map(math.isfinite, (*lons, *lats))):
        return None
    north, east = _metres_a_radian(math.radians(lats[0] + lats[1]) / 2)
    turn = (lons[1] - lons[0] + 180) % 360 - 180  # across the date line too
    ground = math.hypot(math.radians(turn) * east, math.radians(lats[1] - lats[0]) * north)
    scale = ground / math.hypot(xs[1] - xs[0], ys[1] - ys[0])
    return scale if scale > 0 else None


def wanted_steps(
    path: str,
    size_m: tuple[float, float] | None,
    gsd: str | float,
    model_gsd_m: float | None,
) -> tuple[float, float] | None:
    """Source pixels that an output pixel spans along (rows, cols); None where pixels are kept.

    ``auto`` resamples when either axis is off by more than 10 %, a number always.

    Raises:
        OptionError: metres are asked of a raster without georeferencing.
        RasterError: the raster is so coarse that there is nothing to enlarge, or absurdly fine.
    """
    target_m = model_gsd_m if gsd == "auto" else gsd
    if target_m is None or isinstance(target_m, str):
        return None
    if size_m is None:
        if gsd == "auto":
            return None
        raise OptionError(
            f"--gsd {gsd}: {path} has no georeferencing, so its pixels have no metres; use "
            "--gsd native"
        )
    if max(size_m) <= SQUARE_TOLERANCE * min(size_m):
        # Square pixels stay square in the CRS, where the ellipsoid makes them differ a little.
        size_m = (math.sqrt(size_m[0] * size_m[1]),) * 2
    steps = (target_m / size_m[0], target_m / size_m[1])
    tolerance = AUTO_TOLERANCE if gsd == "auto" else FORCED_TOLERANCE
    if all(abs(step - 1) <= tolerance for step in steps):
        return None
    limit = MAX_ENLARGEMENT["auto" if gsd == "auto" else "forced"]
    if min(steps) * limit < 1:
        raise RasterError(
            f"{path}: pixels span {max(size_m):.4g} m, {target_m:.4g} m are wanted, and enlarging "
            f"more than {limit:.0f} times invents the ground; use --gsd native, or a model for "
            "such pixels"
        )
    if max(steps) > MAX_SHRINKING:
        raise RasterError(
            f"{path}: pixels span {min(size_m):.4g} m, {target_m:.4g} m are wanted, more than "
            f"{MAX_SHRINKING} times as much; correct its CRS or transform, or use --gsd native"
        )
    return steps


def output_size(path: str, height: int, width: int, steps: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the output grid, rounded to whole pixels, at least 1.

    Raises:
        RasterError: a side is absurdly long.
    """
    sizes = max(1, round(height / steps[0])), max(1, round(width / steps[1]))
    if max(sizes) > max(MAX_SIDE, height, width):
        raise RasterError(
            f"{path}: {sizes[0]} x {sizes[1]} px would come out, at most {MAX_SIDE} px a side are "
            "made; use --gsd native or --gsd with more metres"
        )
    return sizes
