"""`tilemapper render` of sources of which one read fails, once: GDAL goes on without what it lost.

Every read counts that is made of a source or of a file beside it, by GDAL or by ourselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from tests.conftest import write_raster
from tests.faults.injection import NOT_READ, Driver
from tests.faults.oracle import Oracle, check_map, holes, misread, oracle_of, painted
from tests.faults.table import count

HEIGHT, WIDTH = 300, 420
TILES = {"tiled": True, "blockxsize": 128, "blockysize": 128}
Write = Callable[[Path], NDArray[np.bool_] | None]


def write_strips(path: Path, rows: int) -> None:
    """Uncompressed, so that any bytes can be pixels. libtiff reads a list of 4 or fewer whole."""
    write_raster(path, painted(HEIGHT, WIDTH), blockysize=rows)


def write_bands(path: Path) -> None:
    """Uncompressed tiles of one band each."""
    write_raster(path, painted(HEIGHT, WIDTH), interleave="band", **TILES)


def write_masked(path: Path) -> NDArray[np.bool_]:
    """Mask and overview in directories of their own."""
    mask = holes(HEIGHT, WIDTH)
    write_raster(path, painted(HEIGHT, WIDTH), mask=mask, compress="deflate", **TILES)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2], Resampling.average)
    return mask


def write_beside(path: Path) -> NDArray[np.bool_]:
    """Mask and georeferencing in files beside it."""
    mask = holes(HEIGHT, WIDTH)
    write_raster(path, painted(HEIGHT, WIDTH), compress="deflate", profile="BASELINE", **TILES)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dst:
        dst.write_mask(mask)
    assert path.with_name(path.name + ".msk").exists()
    assert path.with_name(path.name + ".aux.xml").exists()
    return mask


def write_nodata(path: Path) -> NDArray[np.bool_]:
    """A value that means nothing, and file blocks that are not stored."""
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[:128, 128:256] = False
    pixels = np.where(valid, painted(HEIGHT, WIDTH).astype(np.uint16), 65535)
    write_raster(path, pixels, nodata=65535, sparse_ok=True, **TILES)
    return valid


def write_palette(path: Path) -> None:
    """Indexes of colours."""
    profile = {"width": WIDTH, "height": HEIGHT, "count": 1, "dtype": "uint8", "blockysize": 60}
    place = {"crs": "EPSG:32618", "transform": rasterio.Affine(0.9, 0, 583000, 0, -0.9, 4507000)}
    with rasterio.open(path, "w", driver="GTiff", photometric="palette", **profile, **place) as dst:
        dst.write(painted(HEIGHT, WIDTH)[0], 1)
        dst.write_colormap(1, {k: (k, 255 - k, k // 2, 255) for k in range(256)})


SOURCES: dict[str, Write] = {
    "strips": lambda path: write_strips(path, 60),
    "few strips": lambda path: write_strips(path, 100),
    "bands": write_bands,
    "masked": write_masked,
    "beside": write_beside,
    "nodata": write_nodata,
    "palette": write_palette,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory, models: Path, driver: Driver) -> Callable[[str], tuple[Path, Oracle]]:
    """A source in a folder of its own, and the oracle of its render, by name."""

    def made(name: str) -> tuple[Path, Oracle]:
        place = tmp_path_factory.mktemp("source")
        path, target = place / "source" / "city.tif", place / "out" / "map.tif"
        path.parent.mkdir()
        valid = SOURCES[name](path)
        more = ["--scale", "0,255"] if name == "nodata" else []
        oracle = oracle_of(path, target, models / "identity", driver, *more)
        if name != "palette":
            check_map(target, painted(HEIGHT, WIDTH), valid)
        with rasterio.open(path) as src, rasterio.open(target) as dst:
            assert dst.crs == src.crs and dst.transform == src.transform
        return path, oracle

    return made


def failed_reads(
    driver: Driver, path: Path, oracle: Oracle, numbers: Iterable[int]
) -> tuple[int, list[str]]:
    """Renders with the nth read failing, then undisturbed: how many fired, what was wrong."""
    points, wrong = 0, []
    for nth in numbers:
        fault = replace(NOT_READ, nth=nth)
        ended, said = misread(driver, oracle, fault, path, path.parent)
        if not ended.fired:
            assert ended.code == 0, ended
            break
        points += 1
        wrong += [f"read {nth}: {one}" for one in said]
    return points, wrong


# Of the last, the first directory is read again once all are known, before the mask is opened.
@pytest.mark.parametrize(
    ("name", "numbers"),
    [("strips", range(8, 40, 4)), ("masked", range(8, 40, 4)), ("beside", range(26, 34))],
)
def test_a_read_of_a_source_that_fails_once_gives_no_wrong_map(driver, sources, name, numbers):
    path, oracle = sources(name)
    points, wrong = failed_reads(driver, path, oracle, numbers)
    assert points == 8
    assert not wrong, "\n".join(wrong)


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_no_read_of_a_source_that_fails_once_gives_a_wrong_map(driver, sources):
    points, wrong = {}, []
    for name in SOURCES:
        path, oracle = sources(name)
        points[name], found = failed_reads(driver, path, oracle, range(1, 2000))
        wrong += [f"{name}: {one}" for one in found]
        note = ", ".join(f"{name} {number}" for name, number in points.items())
        count("render: read of the source that fails once", sum(points.values()), len(wrong), note)
    assert min(points.values()) > 50
    assert not wrong, "\n".join(wrong)
