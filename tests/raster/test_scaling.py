from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tilemapper.raster.scaling import percentile_limits, to_bytes


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "int64", "float32"])
def test_limits_become_0_and_255_and_all_beyond_is_cut(dtype: str):
    values = np.array([[-100, -10, 0, 45, 100, 120]]).clip(0 if dtype[0] == "u" else -128, None)
    low = 0.0 if dtype[0] == "u" else -10.0
    expected = np.rint(np.clip((values - low) / (100 - low) * 255, 0, 255))
    assert_array_equal(to_bytes(values.astype(dtype), (low, 100.0)), expected)


def test_nan_and_infinity_raise_no_warning():
    values = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert_array_equal(to_bytes(values, (0.0, 1.0)), [[0, 255, 0, 128]])


def test_large_offsets_keep_their_low_digits():
    values = (np.arange(256) + 4_000_000_000).astype(np.uint32)[None]
    assert_array_equal(to_bytes(values, (4e9, 4e9 + 255)), np.arange(256)[None])


def test_a_constant_raster_becomes_mid_grey_and_an_empty_one_has_limits():
    limits = percentile_limits(np.full((3, 10), 7, np.uint16))
    assert_array_equal(to_bytes(np.full((1, 1), 7, np.uint16), limits), [[128]])
    low, high = percentile_limits(np.zeros((3, 0)))
    assert low < high


def test_a_few_wild_values_do_not_set_the_limits():
    values = np.append(np.linspace(100, 200, 10_000), [1e9, -1e9])
    low, high = percentile_limits(values)
    assert 100 <= low <= 103 and 197 <= high <= 200


@pytest.mark.parametrize(
    ("dtype", "most"),
    [("float32", 1e-40), ("float32", 3e38), ("float64", 1e-310), ("float64", 1.7e308)],
)
def test_numbers_at_the_ends_of_what_floats_hold_are_scaled_too(dtype: str, most: float):
    values = (np.arange(-255, 256, 2) / 255 * most).astype(dtype)[None]
    limits = (float(values[0, 0]), float(values[0, -1]))
    assert_array_equal(to_bytes(values, limits), np.arange(256)[None])
