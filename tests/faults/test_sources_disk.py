"""`tilemapper render` of sources that lie on a disk with a bad place: no wrong map comes of one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from tests.conftest import write_raster
from tests.faults.injection import BAD_PLACE, PAGE_BYTES, Driver
from tests.faults.oracle import Oracle, check_map, holes, misread, oracle_of, painted
from tests.faults.table import count

SOURCES = ("small tiles", "masked", "long list")


def write_plain(path: Path) -> NDArray[np.bool_] | None:
    """A list of 532 tiles, and the directory behind all pixels, as of a raster that got tags."""
    write_raster(path, painted(300, 420), tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(PLACE="x" * 2 * PAGE_BYTES)
    return None


def write_masked(path: Path) -> NDArray[np.bool_]:
    """Compressed, with a mask and an overview, each with a directory of its own."""
    mask = holes(300, 420)
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    write_raster(path, painted(300, 420), mask=mask, **tiled)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2], Resampling.average)
    return mask


def write_long(path: Path) -> None:
    """Strips of one row: a list of 80 kB, more than is looked at to know a file again."""
    write_raster(path, painted(20_000, 16), blockysize=1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, models: Path, driver: Driver) -> Callable[[str], tuple[Path, Oracle]]:
    """A source and the oracle of its render, by name; each is made once."""

    @functools.cache
    def made(name: str) -> tuple[Path, Oracle]:
        place = tmp_path_factory.mktemp("source")
        path, target = place / "city.tif", place / "out" / "map.tif"
        write = {"small tiles": write_plain, "masked": write_masked, "long list": write_long}[name]
        valid = write(path)
        oracle = oracle_of(path, target, models / "identity", driver)
        with rasterio.open(path) as src:
            check_map(target, painted(src.height, src.width), valid)
        return path, oracle

    return made


def bad_places(
    driver: Driver, path: Path, oracle: Oracle, pages: Iterable[int]
) -> tuple[int, list[str]]:
    """Renders with each page unreadable, and then healed: how many mattered, what was wrong."""
    points, wrong = 0, []
    for page in pages:
        ended, said = misread(driver, oracle, replace(BAD_PLACE, nth=page), path, path)
        points += ended.fired > 0
        wrong += [f"page {page}: {one}" for one in said]
    return points, wrong


@pytest.mark.parametrize("page", [1, 5, 18, -1])
def test_a_bad_place_of_a_source_gives_no_map_and_is_told(driver, sources, page):
    """In the header, in the list of strips, within its first 64 KiB and beyond, and at the end."""
    path, oracle = sources("long list")
    last = -(-path.stat().st_size // PAGE_BYTES)
    points, wrong = bad_places(driver, path, oracle, [page if page > 0 else last])
    assert points == 1
    assert not wrong, "\n".join(wrong)


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_no_bad_place_of_a_source_gives_a_wrong_map(driver, sources):
    points, wrong = {}, []
    for name in SOURCES:
        path, oracle = sources(name)
        pages = range(1, -(-path.stat().st_size // PAGE_BYTES) + 1)
        step = 1 if name != "long list" else 4
        points[name], found = bad_places(driver, path, oracle, pages[::step])
        wrong += [f"{name}: {one}" for one in found]
    note = ", ".join(f"{name} {number}" for name, number in points.items())
    count("render: page of the source that cannot be read", sum(points.values()), len(wrong), note)
    assert min(points.values()) > 0
    assert not wrong, "\n".join(wrong)
