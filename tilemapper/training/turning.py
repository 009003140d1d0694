"""Patches turned by any angle: cut larger, turned about their middle, the corners left behind."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def side_to_cut(side: int, angle: float) -> int:
    """Side in pixels of the upright square that holds one of ``side`` turned by ``angle``."""
    return math.ceil(side * (abs(math.cos(angle)) + abs(math.sin(angle))))


def turn_image(patches: Tensor, side: int, angle: float) -> Tensor:
    """(n, cut, cut, 3) uint8 -> (n, side, side, 3) uint8, turned and interpolated.

    Args:
        patches: squares of `side_to_cut`.
        side: of what is left, in the same pixels.
        angle: radians.
    """
    cut = patches.shape[1]
    rows, cols = _places(side, angle, cut, patches.device)
    grid = torch.stack([cols, rows], -1) * (2 / cut) - 1
    x = patches.permute(0, 3, 1, 2).float()
    turned = functional.grid_sample(
        x, grid.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=False
    )
    return turned.round_().permute(0, 2, 3, 1).byte()


def turn_map(patches: Tensor, side: int, angle: float) -> Tensor:
    """The counterpart for maps, which takes the nearest pixel: (n, cut, cut, ...) uint8."""
    cut = patches.shape[1]
    rows, cols = (at.long().clamp(0, cut - 1) for at in _places(side, angle, cut, patches.device))
    return patches[:, rows, cols]


def _places(side: int, angle: float, cut: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each pixel of the turned patch has its middle, in pixels of the cut one."""
    at = torch.arange(side, device=device) + (0.5 - side / 2)
    rows, cols = at[:, None], at[None, :]
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * rows + sin * cols + cut / 2, cos * cols - sin * rows + cut / 2
