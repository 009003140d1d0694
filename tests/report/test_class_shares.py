"""Shares of classes, counted by colour, for palettes of every size."""

from __future__ import annotations

import numpy as np
import pytest

from tilemapper.report.class_shares import ClassTally


@pytest.mark.parametrize("count", [1, 3, 255, 256])
def test_every_class_and_other_colours_are_counted(count):
    tally = ClassTally([(f"class {index}", (0, 7, index)) for index in range(count)])
    colours = [(0, 7, index) for index in range(count)] + [(9, 9, 9)] * count
    rgb = np.array([colours], np.uint8)
    tally.add(rgb, np.ones(rgb.shape[:2], bool))
    shares = tally.shares()
    assert [found.share for found in shares[:-1]] == [1 / (2 * count)] * count
    assert (shares[-1].name, shares[-1].share) == ("other colours", 0.5)


def test_shares_are_of_the_valid_pixels_whose_own_share_is_known():
    tally = ClassTally([("land", (1, 1, 1))])
    assert tally.valid == 0.0
    rgb, valid = np.ones((4, 10, 3), np.uint8), np.zeros((4, 10), bool)
    valid[:, :3] = True
    tally.add(rgb, valid)
    tally.add(rgb[:1], np.zeros((1, 10), bool))
    assert ([found.share for found in tally.shares()], tally.valid) == ([1.0], 0.24)
