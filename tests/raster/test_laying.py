"""A raster laid on another's grid is where it should be, and invalid where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from tests.conftest import ORIGIN, noise, write_raster
from tilemapper.raster.geometry import shifted, stretched
from tilemapper.raster.laying import Footing, LaidView
from tilemapper.raster.opening import open_raster
from tilemapper.raster.source import SourceOptions, inspect_source
from tilemapper.raster.webp import encode_picture, encode_within


def spec_of(path):
    return inspect_source(str(path), SourceOptions(gsd="native"), None)


def laid(path, height, width, footing=Footing(), **kw):  # noqa: B008 (frozen)
    return LaidView(spec_of(path), height=height, width=width, footing=footing, **kw)


def smooth(height, width):
    """Slow waves, so that resampling loses little."""
    rows, cols = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(rows / (60 + b)) * np.cos(cols / (75 - b)) for b in range(3)]
    return np.stack(waves).astype(np.uint8)


def test_on_its_own_grid_a_raster_is_itself(make_raster):
    path = make_raster(200, 300)
    with laid(path, 200, 300) as view, rasterio.open(path) as src:
        rgb, valid = view.read(row=20, col=30, height=50, width=60)
        expected = src.read(window=Window(30, 20, 60, 50))
    np.testing.assert_array_equal(rgb.transpose(2, 0, 1), expected)
    assert valid.all()


def test_what_lies_beyond_the_file_is_invalid(make_raster):
    path = make_raster(100, 100)
    with laid(path, 150, 150, Footing(row_first=-20.0, col_first=-30.0)) as view:
        rgb, valid = view.read(row=0, col=0, height=150, width=150)
        picture, seen = view.picture(75, 75)
    assert valid.sum() == 100 * 100
    assert valid[20:120, 30:130].all()
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(rgb[20:120, 30:130].transpose(2, 0, 1), src.read())
    assert abs(int(seen.sum()) - 50 * 50) <= 100
    assert picture[seen].any()


@pytest.mark.parametrize("mode", ["stretched", "moved", "warped"])
def test_another_grid_shows_the_same_ground(tmp_path, mode):
    pixels = smooth(400, 400)
    path = write_raster(tmp_path / "a.tif", pixels)
    transform = {
        "stretched": stretched(ORIGIN, rows=2.0, cols=2.0),
        "moved": shifted(ORIGIN, row=100, col=100),
        "warped": Affine(0.85, 0.3, ORIGIN.c + 90, 0.3, -0.85, ORIGIN.f - 200),
    }[mode]
    footing = {"stretched": Footing(2.0, 0.0, 2.0, 0.0), "moved": Footing(1, 100.0, 1, 100.0)}
    wkt = spec_of(path).crs_wkt
    with laid(path, 150, 150, footing.get(mode), crs_wkt=wkt, transform=transform) as view:
        rgb, valid = view.read(row=0, col=0, height=150, width=150)
        small, small_valid = view.picture(75, 75)
    assert valid.all()
    rows, cols = np.mgrid[:150, :150] + 0.5
    x = transform.a * cols + transform.b * rows + transform.c
    y = transform.d * cols + transform.e * rows + transform.f
    there = pixels[:, ((ORIGIN.f - y) / 0.9).astype(int), ((x - ORIGIN.c) / 0.9).astype(int)]
    apart = np.abs(rgb.astype(int) - there.transpose(1, 2, 0))
    assert apart.max() <= 8  # a pixel of the slope, at most
    mean = rgb.reshape(75, 2, 75, 2, 3).mean(axis=(1, 3))
    assert small_valid.all()
    assert np.abs(small - mean).max() <= 8


def test_another_crs_is_warped_to(tmp_path):
    path = write_raster(tmp_path / "a.tif", smooth(300, 300))
    with open_raster(str(path)) as src:
        from rasterio.warp import transform_bounds

        left, bottom, right, top = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
    transform = Affine((right - left) / 200, 0, left, 0, (bottom - top) / 200, top)
    wkt = rasterio.CRS.from_epsg(4326).to_wkt()
    with laid(path, 200, 200, None, crs_wkt=wkt, transform=transform) as view:
        rgb, valid = view.read(row=50, col=50, height=100, width=100)
        picture, _ = view.picture(50, 50)
    assert valid.all()
    assert rgb.std() > 10
    assert picture.shape == (50, 50, 3)


def test_16_bit_values_are_scaled_the_same_in_windows_and_pictures(tmp_path):
    pixels = (smooth(256, 256).astype(np.uint16) + 50) * 7
    path = write_raster(tmp_path / "deep.tif", pixels, photometric="RGB")
    with laid(path, 256, 256) as view:
        rgb, _ = view.read(row=0, col=0, height=256, width=256)
        picture, _ = view.picture(64, 64)
    mean = rgb.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(picture - mean).max() <= 4


def test_a_masked_part_is_invalid_in_the_picture_too(tmp_path):
    mask = np.ones((200, 200), bool)
    mask[:100] = False
    path = write_raster(tmp_path / "half.tif", noise(200, 200), mask=mask)
    with laid(path, 200, 200) as view:
        _, valid = view.picture(20, 20)
    assert valid[11:].all()
    assert not valid[:9].any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pictures_fit_their_limit_and_keep_what_is_masked():
    rgb = noise(300, 200).transpose(1, 2, 0)
    valid = np.ones((300, 200), bool)
    valid[:50] = False
    whole = encode_picture(np.ascontiguousarray(rgb), valid)
    assert whole.media in ("image/webp", "image/png")
    small = encode_within(np.ascontiguousarray(rgb), valid, 4_000, crisp=True)
    assert len(small.data) <= 4_000 < len(whole.data)
    with rasterio.MemoryFile(whole.data) as memory, memory.open() as src:
        assert src.count == 4
        assert (src.read(4)[:50] == 0).all()
        np.testing.assert_array_equal(src.read([1, 2, 3])[:, 50:], rgb.transpose(2, 0, 1)[:, 50:])
