"""From sums to layers where nothing is kept."""

from __future__ import annotations

import numpy as np
import pytest

from tilemapper.raster.blend import AXIS_ONE, LEVELS
from tilemapper.render.layers import to_layers
from tilemapper.render.rows import PixelRows

PALETTE = np.array([(9, 9, 9), (200, 0, 0), (0, 0, 200)], np.uint8)
NONE = PALETTE[:0]


@pytest.mark.parametrize("palette", [PALETTE, NONE], ids=["palette", "rgb"])
def test_rows_of_which_nothing_is_kept_are_zeros_in_the_shape_of_all_others(palette):
    levels = np.random.default_rng(0).integers(1, 255 * LEVELS, (3, 7, 11))
    totals = (levels * AXIS_ONE**2).astype(np.int32)
    squares = 2 * (levels**2).sum(axis=0) * AXIS_ONE**2  # as of tiles that disagree
    wanted = ("map", "classes", "uncertainty") if len(palette) else ("map", "uncertainty")

    def layers(keep):
        rows = [PixelRows(totals, np.full((7, 11), keep), squares)]
        [(made, kept)] = to_layers(rows, palette, wanted)
        assert (kept == keep).all()
        return made

    some, none = layers(True), layers(False)
    assert {k: (v.shape, v.dtype) for k, v in none.items()} == {
        k: (v.shape, v.dtype) for k, v in some.items()
    }
    assert set(none) == set(wanted)
    assert not any(pixels.any() for pixels in none.values())
    assert all(pixels.any() for pixels in some.values())
