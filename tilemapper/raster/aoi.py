"""An area of interest: polygons of a GeoJSON file, laid on a raster's pixels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from tilemapper.errors import OptionError, RasterError
from tilemapper.raster.edges import MOST_POINTS, Points, TooManyError, TornError, bent, cut
from tilemapper.raster.opening import GDAL_ERRORS
from tilemapper.raster.surroundings import Box, Placing

_MAX_BYTES = 256 * 2**20
# Corners are put on fractions of a pixel that binary numbers hold, so that moving them by whole
# pixels loses nothing, and windows agree about the pixels on an edge.
_FRACTIONS = 256
# The laid polygons go into the plan and from there into a tag of the map, which no reader should
# have to hold at any size: our own stops at 4 MiB.
_MAX_STORED_BYTES = 3 * 2**20


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
            polygons.append([[_point(p) for p in ring] for ring in rings])


def _point(position: Any) -> tuple[float, float]:
    x, y = float(position[0]), float(position[1])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError("a coordinate is no number")
    return x, y


def lay_on_pixels(
    geometry: dict[str, Any],
    crs: CRS,
    *,
    path: str,
    transform: Affine,
    grid_crs: CRS,
    height: int,
    width: int,
) -> dict[str, Any]:
    """The polygons in (col, row) pixels of a grid, without what lies far beside it.

    Raises:
        OptionError: they cannot be expressed in the grid's CRS, or are too detailed to be kept.
        RasterError: they lie beside the grid.
    """
    placing = Placing(crs, grid_crs=grid_crs, transform=transform, height=height, width=width)
    parts = _near(geometry, placing.boxes())
    if not parts:
        raise _beside(path)
    try:
        laid = iter(bent([ring for part in parts for ring in part], placing.to_pixels))
    except TooManyError:
        raise _too_detailed(path, f"more than {MOST_POINTS} points") from None
    except (*GDAL_ERRORS, TornError) as error:
        reason = "an edge is torn apart" if isinstance(error, TornError) else str(error)
        raise OptionError(
            f"--mask {path}: cannot be placed in the raster's CRS ({reason}); check its "
            "coordinates, or cut it to the raster's surroundings with ogr2ogr -clipsrc"
        ) from error
    flat = [[next(laid) for _ in part] for part in parts]
    rings = [[_snapped(ring) for ring in part] for part in flat]
    for turn in placing.turns()[1:]:
        moved = [[_snapped(ring + turn) for ring in part] for part in flat]
        rings += [part for part in moved if not _is_beside(part, height=height, width=width)]
    _check_overlap(rings, path=path, height=height, width=width)
    pixels = {"type": "MultiPolygon", "coordinates": rings}
    size_bytes = len(json.dumps(pixels))
    if size_bytes > _MAX_STORED_BYTES:
        raise _too_detailed(path, f"{size_bytes / 2**20:.1f} MiB of points")
    return pixels


def _near(geometry: dict[str, Any], boxes: list[Box] | None) -> list[list[Points]]:
    """Closed rings of each polygon, in their own CRS, cut to the boxes; all if there are none."""
    parts = [[_closed(ring) for ring in part] for part in geometry["coordinates"] if part]
    if boxes is None:
        return parts
    low = np.array([part[0].min(axis=0) for part in parts])
    high = np.array([part[0].max(axis=0) for part in parts])
    found = []
    for box in boxes:
        # A file may hold all buildings of a country: most are passed over without a look.
        for index in np.flatnonzero(((low <= box[2:]) & (high >= box[:2])).all(axis=1)):
            outer, *holes = (cut(ring, box) for ring in parts[index])
            if len(outer):
                found.append([outer, *(ring for ring in holes if len(ring))])
    return found


def _closed(ring: list[tuple[float, float]]) -> Points:
    points = np.array(ring, np.float64)
    return points if (points[0] == points[-1]).all() else np.concatenate([points, points[:1]])


def _snapped(ring: Points) -> list[list[float]]:
    """A ring's points on fractions of a pixel, each once; what became a line stays as it is."""
    points = np.round(ring * _FRACTIONS) / _FRACTIONS
    moves = np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))
    kept: list[list[float]] = (points[moves] if moves.sum() >= 4 else points).tolist()
    return kept


def _check_overlap(
    rings: list[list[list[list[float]]]], *, path: str, height: int, width: int
) -> None:
    """Refuses polygons whose extent lies beside the grid: no pixel could be wanted."""
    if _is_beside([ring for part in rings for ring in part], height=height, width=width):
        raise _beside(path)


def _is_beside(rings: list[list[list[float]]], *, height: int, width: int) -> bool:
    points = np.concatenate(rings)
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(low[0] >= width or low[1] >= height or high[0] <= 0 or high[1] <= 0)


def _beside(path: str) -> RasterError:
    return RasterError(
        f"--mask {path}: lies beside the raster; check that it is in longitude, latitude (WGS "
        "84), in this order"
    )


def _too_detailed(path: str, found: str) -> OptionError:
    return OptionError(
        f"--mask {path}: {found} on this raster, at most {_MAX_STORED_BYTES >> 20} MiB can be kept "
        "with the map; simplify it by about a pixel with ogr2ogr -simplify TOLERANCE NEW.geojson "
        "and give that"
    )
