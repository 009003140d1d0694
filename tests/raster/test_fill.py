from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemapper.raster.fill import fill_invalid


def tiles(seed: int = 0, count: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), share=st.floats(0, 1))
def test_valid_pixels_keep_their_value_and_filled_ones_stay_in_range(seed, share):
    image = tiles(seed)
    valid = np.random.default_rng(seed).random(image.shape[:3]) < share
    filled = fill_invalid(image, valid, (1, 2, 3))
    assert np.array_equal(filled[valid], image[valid])
    for index in range(len(image)):
        if valid[index].any():
            low, high = image[index][valid[index]].min(), image[index][valid[index]].max()
            assert filled[index].min() >= low
            assert filled[index].max() <= high


def test_what_lies_under_the_mask_has_no_influence():
    image = tiles()
    valid = np.ones(image.shape[:3], bool)
    valid[:, 10:40, 5:30] = False
    other = np.where(valid[..., None], image, 255 - image)
    assert np.array_equal(
        fill_invalid(image, valid, (0, 0, 0)), fill_invalid(other, valid, (0, 0, 0))
    )


def test_a_tile_without_a_valid_pixel_takes_the_mean():
    filled = fill_invalid(tiles(), np.zeros((2, 64, 64), bool), (10, 20, 30))
    assert (filled == (10, 20, 30)).all()


def test_holes_in_a_flat_tile_vanish():
    image = np.full((1, 64, 64, 3), 77, np.uint8)
    valid = np.random.default_rng(3).random((1, 64, 64)) < 0.3
    assert (fill_invalid(image * valid[..., None], valid, (0, 0, 0)) == 77).all()


def test_whole_tiles_are_handed_through():
    image = tiles()
    assert fill_invalid(image, np.ones(image.shape[:3], bool), (0, 0, 0)) is image


@pytest.mark.parametrize("side", [1, 3, 96, 100])
def test_tiles_of_any_side_are_filled(side: int):
    image = np.random.default_rng(5).integers(50, 200, (2, side, side, 3), dtype=np.uint8)
    valid = np.random.default_rng(6).random((2, side, side)) < 0.2
    valid[0, -1, -1] = True
    filled = fill_invalid(image, valid, (7, 8, 9))
    assert filled.shape == image.shape
    assert np.array_equal(filled[valid], image[valid])
    assert filled[0].min() >= 50 and filled[0].max() < 200  # nothing from beyond the tile


def test_a_tile_is_filled_as_in_the_corner_of_a_larger_one_of_which_no_more_is_known():
    image = np.random.default_rng(5).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    valid = np.random.default_rng(6).random((1, 96, 96)) < 0.2
    larger, known = np.full((1, 128, 128, 3), 99, np.uint8), np.zeros((1, 128, 128), bool)
    larger[:, :96, :96], known[:, :96, :96] = image, valid
    expected = fill_invalid(larger, known, (0, 0, 0))[:, :96, :96]
    assert np.array_equal(fill_invalid(image, valid, (0, 0, 0)), expected)
