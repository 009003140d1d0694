"""The joined raster written again by GDAL, for drivers and options that only it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil

from tilemapper.errors import StagingError
from tilemapper.raster.gdal_writing import gdal_writes
from tilemapper.raster.opening import open_raster
from tilemapper.render.plan import Plan


def translate(part: Path, plan: Plan, target: Path) -> None:
    """Replaces ``part`` by what GDAL makes of it; ``target`` is what errors speak of.

    Raises:
        DiskFullError, TargetError: GDAL cannot write it.
        StagingError: what it wrote has another place, or other tags.
    """
    again = part.with_name(part.stem + ".gdal" + part.suffix)
    try:
        options: dict[str, Any] = {"BIGTIFF": "IF_SAFER", **plan.creation_options}
        if plan.driver == "GTiff":
            options = {"TILED": "YES", "COMPRESS": "DEFLATE", **options}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), gdal_writes(target, "check --co"):
            rasterio.shutil.copy(str(part), str(again), driver=plan.driver, **options)
        _compare(part, again, target)
        again.replace(part)
    finally:
        again.unlink(missing_ok=True)


def _compare(part: Path, again: Path, target: Path) -> None:
    """Place and tags; the pixels are compared with the blocks."""
    with open_raster(str(part)) as joined, open_raster(str(again)) as written:
        for name in ("transform", "crs", "gcps"):
            if getattr(written, name) != getattr(joined, name):
                raise StagingError(f"{target}: GDAL wrote it with another {name}; check --co")
        for key, value in joined.tags().items():
            # GDAL keeps this one for itself.
            if key != "AREA_OR_POINT" and written.tags().get(key) != value:
                raise StagingError(f"{target}: GDAL wrote it with another tag {key}; check --co")
