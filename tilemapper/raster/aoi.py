"""An area of interest: polygons of a GeoJSON file, laid on a raster's pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom

from tilemapper.errors import OptionError, RasterError
from tilemapper.raster.geometry import to_pixels
from tilemapper.raster.opening import GDAL_ERRORS

_MAX_BYTES = 256 * 2**20
# Corners are put on fractions of a pixel that binary numbers hold, so that moving them by whole
# pixels loses nothing, and windows agree about the pixels on an edge.
_FRACTIONS = 256


def read_polygons(path: str) -> tuple[dict[str, Any], CRS]:
    """Polygons of a GeoJSON file as one MultiPolygon, and their CRS.

    That is WGS 84 (RFC 7946), unless a ``crs`` member, as of 2008, says otherwise.

    Raises:
        OptionError: the file is missing, no GeoJSON, or holds no polygon.
    """
    try:
        if Path(path).stat().st_size > _MAX_BYTES:
            raise OptionError(f"--mask {path}: larger than 256 MiB; simplify the polygons")
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise OptionError(f"--mask {path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--mask {path}: is no JSON; give a GeoJSON file") from error
    polygons: list[Any] = []
    try:
        _collect(content, polygons)
        name = (content.get("crs") or {}).get("properties", {}).get("name", "OGC:CRS84")
        crs = CRS.from_user_input(name)
    except (
        *GDAL_ERRORS,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise OptionError(
            f"--mask {path}: is no GeoJSON that can be understood ({error}); write it as RFC 7946"
        ) from error
    if not any(rings and rings[0] for rings in polygons):
        raise OptionError(f"--mask {path}: no polygon found; give Polygon or MultiPolygon features")
    return {"type": "MultiPolygon", "coordinates": polygons}, crs


def _collect(value: dict[str, Any], polygons: list[Any]) -> None:
    """Appends the rings of all polygons below value, as plain pairs of numbers."""
    kind = value["type"]
    if kind == "FeatureCollection":
        for feature in value["features"]:
            _collect(feature, polygons)
    elif kind == "Feature":
        if value["geometry"] is not None:
            _collect(value["geometry"], polygons)
    elif kind == "GeometryCollection":
        for geometry in value["geometries"]:
            _collect(geometry, polygons)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates = value["coordinates"]
        for rings in [coordinates] if kind == "Polygon" else coordinates:
            if rings and min(map(len, rings)) < 4:
                raise ValueError("a ring has fewer than 4 points")
            polygons.append([[(float(p[0]), float(p[1])) for p in ring] for ring in rings])


def lay_on_pixels(
    geometry: dict[str, Any], crs: CRS, *, path: str, transform: Affine, grid_crs: CRS
) -> dict[str, Any]:
    """The polygons in (col, row) pixels of a grid.

    Raises:
        OptionError: they cannot be expressed in the grid's CRS.
    """
    try:
        placed = transform_geom(crs, grid_crs, geometry)
    except GDAL_ERRORS as error:
        raise OptionError(
            f"--mask {path}: cannot be placed in the raster's CRS ({error}); check its coordinates"
        ) from error
    parts = [placed["coordinates"]] if placed["type"] == "Polygon" else placed["coordinates"]
    rings = [
        [[_snapped(transform, *point[:2]) for point in ring] for ring in part] for part in parts
    ]
    return {"type": "MultiPolygon", "coordinates": rings}


def _snapped(transform: Affine, x: float, y: float) -> list[float]:
    row, col = to_pixels(transform, x=x, y=y)
    return [round(value * _FRACTIONS) / _FRACTIONS for value in (col, row)]


def check_overlap(geometry: dict[str, Any], *, path: str, height: int, width: int) -> None:
    """Refuses polygons whose extent lies beside the grid.

    Raises:
        RasterError: no pixel could be wanted.
    """
    points = np.array([p for part in geometry["coordinates"] for ring in part for p in ring])
    low, high = points.min(axis=0), points.max(axis=0)
    if low[0] >= width or low[1] >= height or high[0] <= 0 or high[1] <= 0:
        raise RasterError(
            f"--mask {path}: lies beside the raster; check that it is in longitude, latitude (WGS "
            "84), in this order"
        )


def inside(
    geometry: dict[str, Any], *, row: int, col: int, height: int, width: int
) -> NDArray[np.bool_]:
    """Pixels of a window whose centres lie in the polygons, (height, width)."""
    mask: NDArray[np.bool_] = geometry_mask(
        [geometry],
        out_shape=(height, width),
        transform=Affine.translation(col, row),
        invert=True,
    )
    return mask
