"""Two openings of a file say the same; of a file that lost something in one of them they do not."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from tests.raster.made import city, placed, write_raster
from tilemapper.errors import RasterError, ShortageError
from tilemapper.raster import opening
from tilemapper.raster.opening import open_raster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

VALID = np.indices((90, 130)).sum(axis=0) % 7 > 0
COLOURS = {k: (k, 255 - k, 9, 255) for k in range(256)}
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}
POINTS = [GroundControlPoint(row, col, col, -row) for row, col in ((0, 0), (0, 90), (80, 0))]
# What a file has, and what is found where it is lost.
LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "CRS": ({}, {"crs": None}, "CRS"),
    "transform": ({}, {"transform": None}, "transform"),
    "control points": ({"transform": None, "gcps": POINTS}, {"gcps": None}, "control"),
    "nodata": ({"nodata": 0}, {"nodata": None}, "nodata"),
    "mask": ({"mask": VALID}, {"mask": None}, "mask"),
    "mask beside it": ({"mask": VALID, "internal_mask": False}, {"mask": None}, "mask"),
    "alpha": ({"bands": 4, "colorinterp": RGBA}, {"alpha": "unspecified"}, "colours"),
    "palette": ({"bands": 1, "colormap": COLOURS}, {"colormap": {0: (1, 2, 3, 255)}}, "palette"),
    "list of tiles": (
        {"tiled": True, "blockxsize": 64, "blockysize": 64},
        {"tiled": False},
        "file",
    ),
}


def made(path: Path, bands: int = 3, alpha: str = "yes", **options: Any) -> str:
    if bands == 4 and alpha != "yes":
        options["colorinterp"] = [*RGBA[:3], ColorInterp.undefined]
    return write_raster(path, city(bands=bands), **options)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("whole", [1, 2])
def test_what_one_of_two_openings_does_not_see_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, whole: int
):
    """Be it the first that does not, whose pixels are used, or the second."""
    has, without, word = LOSSES[name]
    path = made(tmp_path / "a.tif", **has)
    other = made(tmp_path / "b.tif", **{**has, **without})
    open_raster(path).close()
    opened: list[str] = []

    def opening_them(named: str, driver: str, overview: int | None) -> Any:
        opened.append(named)
        return rasterio.open(path if len(opened) == whole else other, driver=driver)

    monkeypatch.setattr(opening, "_open_with", opening_them)
    with pytest.raises(RasterError, match=rf"a.tif: opened twice.*{word}.*check the disk"):
        open_raster(path)
    assert opened == [path, path]


def test_a_scale_that_one_of_two_openings_does_not_see_is_named(tmp_path, monkeypatch):
    path, other = made(tmp_path / "a.tif"), made(tmp_path / "b.tif")
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (0.5,) * 3, (7.0,) * 3
    names = iter((path, other))
    monkeypatch.setattr(opening, "_open_with", lambda *_: rasterio.open(next(names)))
    with pytest.raises(RasterError, match=r"scales"):
        open_raster(path)


def test_what_gdal_goes_without_for_too_many_files_is_no_damage(tmp_path):
    """However many files are left: the mask is one more, of each of the two openings."""
    path = made(tmp_path / "a.tif", **LOSSES["mask beside it"][0])
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    short = 0
    used = os.open(os.devnull, os.O_RDONLY)
    os.close(used)  # the lowest that is free; those above it that are not count as well
    for left in range(24):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + left, allowed[1]))
        try:
            open_raster(path).close()
        except ShortageError:
            short += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert 0 < short < 24


@pytest.mark.parametrize("driver", ["GTiff", "PNG", "JPEG", "JP2OpenJPEG"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_a_sound_file_of_any_kind_is_opened(tmp_path: Path, driver: str, nodata: float | None):
    place: dict[str, Any] = {} if driver == "GTiff" else {"crs": None, "transform": None}
    path = made(tmp_path / "a", driver=driver, nodata=nodata, **place)
    with open_raster(path) as src:
        assert src.shape == (90, 130)


def test_overviews_of_a_raster_without_georeferencing_are_opened(tmp_path: Path):
    """GDAL gives such an overview no transform, and what is found there is never twice the same."""
    path = made(tmp_path / "a.tif", crs=None, transform=None)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([2, 4])
    for level, shape in enumerate([(45, 65), (23, 33)]):
        with open_raster(path, overview=level) as src:
            assert src.shape == shape


def test_values_that_equal_nothing_are_the_same_twice(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city(dtype="float32"), nodata=float("nan"))
    with open_raster(path) as src:
        assert np.isnan(src.nodata)


def test_a_remote_raster_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, opened = made(tmp_path / "a.tif", transform=placed()), []

    def counted(named: str, driver: str, overview: int | None) -> Any:
        opened.append(named)
        return rasterio.open(path, driver=driver)

    monkeypatch.setattr(opening, "_open_with", counted)
    with open_raster("https://a/b.tif") as src:
        assert src.crs is not None
    assert opened == ["https://a/b.tif"]
