from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemapper.errors import OptionError
from tilemapper.raster.lattice import OVERLAPS, Axis, Lattice, reflect

lengths = st.one_of(st.integers(1, 700), st.sampled_from([1, 192, 193, 256, 4096, 40_000, 99_999]))


@given(length=lengths, overlap=st.sampled_from(OVERLAPS))
def test_tiles_start_on_the_phase_and_cover_the_rim(length, overlap):
    starts = Axis(length, overlap).starts
    assert starts[0] == -32
    assert (starts % 32 == 0).all()
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= 256 - overlap).all()
    assert starts[-1] + 256 >= length + 32
    assert len(starts) == 1 or starts[-1] + 256 < length + 64


@given(length=lengths, overlap=st.sampled_from(OVERLAPS))
def test_weights_sum_to_1024_at_every_pixel(length, overlap):
    axis = Axis(length, overlap)
    total = np.zeros(axis.starts[-1] + 32 + 256, np.int64)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        total[start + 32 : start + 32 + 256] += weights
    assert (total == 1024).all()
    assert axis.weights.min() >= 0


@given(length=lengths, overlap=st.sampled_from(OVERLAPS), data=st.data())
def test_tiles_over_a_span_are_all_and_only_those_that_reach_it(length, overlap, data):
    axis = Axis(length, overlap)
    first = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(first + 1, length))
    chosen = set(axis.tiles_over(first, end))
    reaching = {i for i, s in enumerate(axis.starts) if s < end and s + 256 > first}
    assert chosen == reaching


@given(length=st.integers(1, 300), index=st.integers(-900, 900))
def test_reflection_mirrors_without_repeating_the_edge(length, index):
    expected = (
        np.pad(np.arange(length), (900, 900), mode="reflect")[index + 900] if length > 1 else 0
    )
    assert reflect(np.array([index]), length)[0] == expected


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), size=st.sampled_from([512, 1024]))
def test_blocks_cover_every_pixel_once(height, width, size):
    seen = np.zeros((height, width), np.uint8)
    for block in Lattice(height, width).blocks(size):
        seen[block.row : block.row + block.height, block.col : block.col + block.width] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("overlap", [-32, 1, 63, 160, 256])
def test_an_overlap_off_the_phase_is_refused(overlap):
    with pytest.raises(OptionError, match=f"overlap {overlap}: must be one of 0, 32, 64, 96, 128"):
        Lattice(100, 100, overlap)


def test_a_tile_must_hold_two_overlaps():
    with pytest.raises(OptionError, match="half of the tile"):
        Lattice(100, 100, 96, tile=128)
