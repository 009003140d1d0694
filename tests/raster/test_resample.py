from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tilemapper.raster.resample import resample_window, taps

STEPS = st.floats(0.05, 40)


def resample(pixels, step, *, valid=None, window=None):
    """The output of an array (3, h, w), or a window of it."""
    size = pixels.shape[1:]
    out = [max(1, round(length / step)) for length in size]
    row, col, height, width = window or (0, 0, *out)

    def read(row, col, height, width):
        here = np.s_[row : row + height, col : col + width]
        return pixels[(slice(None), *here)], None if valid is None else valid[here]

    return resample_window(
        read, row=row, col=col, height=height, width=width, steps=(step, step), size=size
    )


@settings(max_examples=200, deadline=None)
@given(step=STEPS, size=st.integers(1, 300))
def test_weights_sum_to_one_and_lie_in_the_source(step: float, size: int):
    found = taps(0, max(1, round(size / step)), step=step, size=size)
    assert_allclose(found.weights.sum(axis=1), 1, atol=1e-5)
    assert found.first >= 0 and found.beyond <= size


@settings(max_examples=60, deadline=None)
@given(step=STEPS, height=st.integers(1, 90), width=st.integers(1, 90), value=st.integers(0, 255))
def test_a_constant_stays_the_constant(step: float, height: int, width: int, value: int):
    rgb, valid = resample(np.full((3, height, width), value, np.uint8), step)
    assert (rgb == value).all() and valid is None


def test_shrinking_by_a_whole_number_is_the_mean_of_the_area():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8)
    rgb, _ = resample(pixels, 4.0)
    means = pixels.reshape(3, 10, 4, 15, 4).astype(float).mean(axis=(2, 4))
    assert np.abs(rgb - means).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("step", [0.3, 0.8, 1.25, 1.9, 2.4, 7.0])
def test_a_gradient_keeps_its_place(step: float):
    rows, cols = np.mgrid[:100, :100]
    pixels = np.stack([rows * 2, cols * 2, 255 - rows]).astype(np.uint8)
    rgb, _ = resample(pixels, step)
    centres = (np.arange(rgb.shape[1]) + 0.5) * step - 0.5
    inner = (centres > 8) & (centres < 91)
    middle = rgb.shape[2] // 2
    assert np.abs(rgb[0, inner, middle] - 2 * centres[inner]).max() <= 1
    assert np.abs(rgb[1, middle, inner] - 2 * centres[inner]).max() <= 1


def test_a_pixel_is_valid_from_half_of_its_area_on():
    valid = np.array([[1, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]], bool)
    _, there = resample(np.full((3, 2, 8), 9, np.uint8), 2.0, valid=valid)
    assert_array_equal(there, [[False, True, True, False]])


def test_fine_stripes_vanish_when_they_shrink_instead_of_turning_into_coarse_ones():
    pixels = np.zeros((3, 120, 120), np.uint8)
    pixels[:, :, ::2] = 200
    for step in (2.3, 3.7, 5.1):
        rgb, _ = resample(pixels, step)
        assert rgb[:, :, 1:-1].astype(float).std() < 25
    rgb, _ = resample(pixels, 1.7)
    assert rgb[:, :, 2:-2].astype(float).std() < 40


@settings(max_examples=60, deadline=None)
@given(
    step=st.sampled_from([0.4, 0.9, 1.3, 2.6, 6.84]),
    seed=st.integers(0, 10**6),
    holes=st.booleans(),
)
def test_windows_agree_bit_for_bit(step: float, seed: int, holes: bool):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (3, 70, 50), dtype=np.uint8)
    valid = rng.random((70, 50)) > 0.2 if holes else None
    rgb, there = resample(pixels, step, valid=valid)
    height, width = rgb.shape[1:]
    row, col = int(rng.integers(0, height)), int(rng.integers(0, width))
    window = (
        row,
        col,
        int(rng.integers(1, height - row + 1)),
        int(rng.integers(1, width - col + 1)),
    )
    part, part_there = resample(pixels, step, valid=valid, window=window)
    here = np.s_[row : row + window[2], col : col + window[3]]
    assert_array_equal(part, rgb[(slice(None), *here)])
    if part_there is not None:
        assert_array_equal(part_there, there[here])
    else:
        assert there is None or there[here].all()
