"""Averages, samples and PNGs, against plain loops."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.drawing import EMPTY_PNG, averaged, draw, png_of


@pytest.mark.parametrize("size", [(1, 1), (7, 10), (12, 9)])
@pytest.mark.parametrize("group", [2, 3, 5, 300])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_an_average_is_that_of_the_kept_pixels_of_each_group(size, group, share):
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    keep = rng.random(size) < share if share < 1 else np.ones(size, bool)
    mean, kept = averaged(rgb, keep, group)
    for row in range(mean.shape[0]):
        for col in range(mean.shape[1]):
            here = np.s_[row * group : (row + 1) * group, col * group : (col + 1) * group]
            pixels = rgb[here][keep[here]].astype(int)
            assert kept[row, col] == (2 * len(pixels) >= keep[here].size)
            if len(pixels):
                expected = np.floor(pixels.mean(axis=0) + 0.5)
                assert np.abs(mean[row, col] - expected).max() == 0


def test_the_average_of_millions_of_bright_pixels_is_bright():
    bright = np.full((4000, 3000, 3), 255, np.uint8)
    mean, kept = averaged(bright, np.ones((4000, 3000), bool), 4000)
    assert (mean.tolist(), kept.tolist()) == ([[[255, 255, 255]]], [[True]])


@pytest.mark.parametrize("step", [30.0, 150_000.0, 1e12])
@pytest.mark.parametrize("size", [(20, 30), (2, 3000)])
def test_a_raster_within_one_pixel_of_a_tile_takes_no_more_memory_than_it_has(size, step):
    def read(row, col, height, width):
        return np.full((height, width, 3), 90, np.uint8), np.ones((height, width), bool)

    rows = np.broadcast_to((np.arange(256) - 128.0)[:, None] * step + size[0] / 2, (256, 256))
    cols = np.broadcast_to((np.arange(256) - 128.0) * step + size[1] / 2, (256, 256))
    tracemalloc.start()
    tile = draw(read, (rows, cols), height=size[0], width=size[1], step=step, smooth=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tile[128, 128].tolist() == [90, 90, 90, 255]
    assert peak < 16 * 2**20


@pytest.mark.parametrize("step", [0.3, 1.0, 1.37, 3.3])
@pytest.mark.parametrize("smooth", [True, False])
def test_a_pixel_does_not_depend_on_the_tile_that_shows_it(step, smooth):
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 256, (900, 1000, 3), dtype=np.uint8)
    keep = rng.random((900, 1000)) < 0.9

    def read(row, col, height, width):
        here = np.s_[row : row + height, col : col + width]
        return rgb[here], keep[here]

    def tile(first):
        rows = np.broadcast_to(((np.arange(256) + 0.5) * step + 11)[:, None], (256, 256))
        cols = np.broadcast_to((first + np.arange(256) + 0.5) * step, (256, 256))
        return draw(read, (rows, cols), height=900, width=1000, step=step, smooth=smooth)

    assert_array_equal(tile(0)[:, 40:], tile(40)[:, :-40])


def test_pngs_hold_the_pixels():
    tile = np.random.default_rng(3).integers(0, 256, (256, 256, 4), dtype=np.uint8)
    assert_array_equal(np.asarray(Image.open(io.BytesIO(png_of(tile)))), tile)
    tile[..., 3] = 255
    image = Image.open(io.BytesIO(png_of(tile)))
    assert image.mode == "RGB"
    assert_array_equal(np.asarray(image), tile[..., :3])
    assert not np.asarray(Image.open(io.BytesIO(EMPTY_PNG))).any()


def test_a_cache_holds_so_many_bytes_and_drops_the_oldest():
    cache = BoundedCache(10, len)
    cache.put("a", b"1234")
    cache.put("b", b"1234")
    assert cache.get("a") == b"1234"
    cache.put("c", b"1234")
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c"), cache.held_bytes) == (b"1234", b"1234", 8)
    cache.put("a", b"12345678901")  # larger than all of it
    assert cache.get("a") is None
    assert cache.held_bytes == 4
    cache.drop(lambda key: key == "c")
    assert (len(cache), cache.held_bytes) == (0, 0)
