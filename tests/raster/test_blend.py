from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemapper.raster.blend import AXIS_ONE, HALF, LEVELS, TOP, blend_along, taper, to_grey
from tilemapper.raster.lattice import OVERLAPS, Axis


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_neighbouring_tapers_sum_to_one(overlap):
    shape = taper(256, overlap)
    assert np.allclose(shape[:overlap] + shape[256 - overlap :], 1, atol=1e-12)
    assert (shape[overlap : 256 - overlap] == 1).all()


def test_the_largest_sum_fits_in_32_bits():
    assert TOP * AXIS_ONE**2 + HALF < 2**31
    assert to_grey(np.int32(TOP * AXIS_ONE**2)) == 255


@given(level=st.integers(0, 255))
def test_a_whole_grey_level_comes_back(level):
    assert to_grey(np.int32(level * LEVELS * AXIS_ONE**2)) == level


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 1500),
    overlap=st.sampled_from(OVERLAPS),
    channels=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 99),
)
def test_both_ways_add_what_the_definition_says(width, overlap, channels, seed):
    axis = Axis(width, overlap)
    starts = axis.starts + 32
    tiles = np.random.default_rng(seed).integers(0, TOP + 1, (len(starts), channels, 4, 256))
    tiles = tiles.astype(np.int16)
    expected = np.zeros((channels, 4, int(starts[-1]) + 256), np.int64)
    for start, tile, weights in zip(starts, tiles, axis.weights, strict=True):
        expected[:, :, start : start + 256] += tile * weights.astype(np.int64)
    row = np.zeros((channels, 4, expected.shape[2] + 256), np.int32)
    blend_along(row, tiles, axis.weights, starts)
    assert np.array_equal(row[:, :, :-256], expected)
    assert not row[:, :, -256:].any()
    lanes = torch.zeros(row.shape, dtype=torch.int32)
    blend_along(lanes, torch.from_numpy(tiles), torch.from_numpy(axis.weights), starts)
    assert np.array_equal(lanes.numpy(), row)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_torch_does_the_same_arithmetic(overlap):
    axis = Axis(1000, overlap)
    starts = axis.starts + 32
    tiles = np.random.default_rng(1).integers(0, TOP + 1, (len(starts), 3, 8, 256), dtype=np.int16)
    row = np.zeros((3, 8, int(starts[-1]) + 512), np.int32)
    blend_along(row, tiles, axis.weights, starts)
    same = torch.zeros(row.shape, dtype=torch.int32)
    blend_along(same, torch.from_numpy(tiles), torch.from_numpy(axis.weights), starts)
    assert np.array_equal(same.numpy(), row)
    assert np.array_equal(to_grey(same * AXIS_ONE).numpy(), to_grey(row * AXIS_ONE))
