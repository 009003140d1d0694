"""GDAL's cache: `rasterio.Env` takes bytes, and 32 of those hold no file block."""

from __future__ import annotations

import re
from pathlib import Path

import rasterio

import tilemapper


def test_a_render_reads_with_a_cache_that_holds_file_blocks(make_raster, models, tmp_path):
    seen = []

    def look(*_plan):
        seen.append(rasterio.env.getenv()["GDAL_CACHEMAX"])

    city = make_raster(100, 100)
    tilemapper.render(city, tmp_path / "map.tif", models / "identity", on_plan=look)
    assert seen[0] >= 8 << 20


def test_no_environment_of_rasterios_is_given_megabytes():
    for path in Path(tilemapper.__file__).parent.rglob("*.py"):
        given = re.findall(r"GDAL_CACHEMAX=([^,)]+)", path.read_text())
        assert not any(value.strip().endswith("_MB") for value in given), (
            f"{path}: bytes are needed"
        )
