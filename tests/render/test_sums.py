"""Sums of a block: what the definition says, however tiles lie and whichever are missing."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilemapper.raster.lattice import Lattice
from tilemapper.render.block import blend_rows
from tilemapper.render.rows import PredictedRow

OVERLAPS = (0, 32, 64, 96, 128)


# Two rows of tiles without any, and what the row above them carries reaches over both.
@example(height=520, width=300, overlap=96, channels=1, size=8192, squares=True, empty=0.5, seed=4)
@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 1500),
    width=st.integers(1, 900),
    overlap=st.sampled_from(OVERLAPS),
    channels=st.sampled_from([1, 3, 4]),
    size=st.sampled_from([512, 8192]),
    squares=st.booleans(),
    empty=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 99),
)
def test_sums_are_those_of_the_definition(
    height, width, overlap, channels, size, squares, empty, seed
):
    lattice = Lattice(height, width, overlap)
    rng = np.random.default_rng(seed)
    shape = (len(lattice.rows.starts), len(lattice.cols.starts), channels, 256, 256)
    made = rng.integers(0, 2041, shape).astype(np.int16)
    missing = rng.random(shape[:2]) < 0.2
    missing[rng.random(len(missing)) < empty] = True
    made[missing] = 0
    whole = {1: np.zeros((channels, height, width), np.int64)}
    whole[2] = whole[1].copy()
    for row, top in enumerate(lattice.rows.starts):
        for col, left in enumerate(lattice.cols.starts):
            weight = np.outer(lattice.rows.weights[row], lattice.cols.weights[col])
            rows = slice(max(0, -top), min(256, height - top))
            cols = slice(max(0, -left), min(256, width - left))
            for power, sums in whole.items():
                part = (made[row, col].astype(np.int64) ** power * weight)[:, rows, cols]
                at = (slice(top + rows.start, top + rows.stop),)
                sums[:, at[0], left + cols.start : left + cols.stop] += part
    for block in lattice.blocks(size):
        inside = lattice.cols.tiles_over(block.col, block.col + block.width)
        wide = int(lattice.cols.starts[inside[-1]]) + 256 - int(lattice.cols.starts[inside[0]])
        rows = (
            PredictedRow(
                index,
                np.ones((256, wide), bool),
                [None if missing[index, col] else made[index, col] for col in inside],
                channels,
            )
            for index in lattice.rows.tiles_over(block.row, block.row + block.height)
        )
        parts = list(blend_rows(rows, lattice, block, squares=squares))
        window = (
            slice(block.row, block.row + block.height),
            slice(block.col, block.col + block.width),
        )
        totals = np.concatenate([part.totals for part in parts], axis=1)
        assert totals.dtype == np.int32
        assert np.array_equal(totals, whole[1][:, *window])
        if squares:
            powers = np.concatenate([part.squares for part in parts])
            assert np.array_equal(powers, whole[2].sum(axis=0)[window])


def test_lent_rows_hold_the_same_sums_while_they_are_current():
    lattice = Lattice(500, 300)
    made = np.random.default_rng(0).integers(0, 2041, (3, 256, 256)).astype(np.int16)

    def rows():
        for index in range(len(lattice.rows.starts)):
            count = len(lattice.cols.starts)
            wide = int(lattice.cols.starts[-1]) + 256 + 32
            yield PredictedRow(index, np.ones((256, wide), bool), [made] * count, 3)

    block = lattice.blocks(8192)[0]
    owned = [part.totals for part in blend_rows(rows(), lattice, block)]
    lent = [part.totals.copy() for part in blend_rows(rows(), lattice, block, lent=True)]
    assert np.array_equal(np.concatenate(owned, axis=1), np.concatenate(lent, axis=1))
