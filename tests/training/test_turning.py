from __future__ import annotations

import math

import pytest
import torch

from tilemapper.training.turning import side_to_cut, turn_image, turn_map

ANGLES = (-45, -30, -7, 3, 20, 45)


def plane(cut: int) -> torch.Tensor:
    """A picture of (row, column, 7) in every pixel, from the middle, so that turning is plain."""
    at = torch.arange(cut)
    rows, cols = torch.broadcast_tensors(at[:, None], at[None, :])
    return torch.stack([rows, cols, torch.full_like(rows, 7)], -1)[None].byte()


@pytest.mark.parametrize("degrees", ANGLES)
@pytest.mark.parametrize("side", [33, 64])
def test_a_turned_patch_shows_the_ground_about_the_middle_turned(degrees, side):
    angle = math.radians(degrees)
    cut = side_to_cut(side, angle)
    found = turn_image(plane(cut), side, angle)[0].double()
    at = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    rows, cols = at[:, None], at[None, :]
    expected = [
        math.cos(angle) * rows + math.sin(angle) * cols + cut / 2 - 0.5,
        math.cos(angle) * cols - math.sin(angle) * rows + cut / 2 - 0.5,
    ]
    for band, true in enumerate(expected):
        # Half a level of rounding; nothing was needed from beyond what was cut.
        assert float((found[..., band] - true).abs().max()) < 0.51
    assert (found[..., 2] == 7).all()


@pytest.mark.parametrize("degrees", ANGLES)
def test_a_map_is_turned_by_the_same_and_keeps_its_colours(degrees):
    angle = math.radians(degrees)
    cut = side_to_cut(48, angle)
    smooth, nearest = (turn(plane(cut), 48, angle).int() for turn in (turn_image, turn_map))
    assert int((smooth - nearest).abs().max()) <= 1
    classes = torch.randint(5, (2, cut, cut), dtype=torch.uint8)
    turned = turn_map(classes, 48, angle)
    assert turned.shape == (2, 48, 48) and set(turned.unique().tolist()) <= set(range(5))
    assert torch.equal(
        turn_map(classes[..., None].expand(-1, -1, -1, 3), 48, angle)[..., 0], turned
    )


def test_nothing_moves_at_angle_zero():
    patches = torch.randint(256, (2, 20, 20, 3), dtype=torch.uint8)
    assert side_to_cut(20, 0.0) == 20
    assert torch.equal(turn_image(patches, 20, 0.0), patches)
    assert torch.equal(turn_map(patches, 20, 0.0), patches)


def test_the_square_that_is_cut_holds_the_turned_one():
    for degrees in range(-45, 46, 5):
        angle = math.radians(degrees)
        corner = 100 / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
        assert corner * 2 <= side_to_cut(100, angle) < corner * 2 + 1
