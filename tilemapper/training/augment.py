"""The random draw that varies a batch of pairs, and what it does to pixels.

A draw is a pure function of (seed, step): a resumed run sees the pairs that the straight run saw,
and several processes can each take their part of one draw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from tilemapper.training.config import AugmentConfig
from tilemapper.training.imagery import DRAWN


@dataclass(frozen=True)
class Draw:
    """Random numbers of one batch of n samples, on the host.

    ``index``: (n,) int64, the pair. ``place``: (n, 2) in [0, 1), where the patch lies between
    its first and last position. ``flip``: (n, 2) bool, vertical and horizontal. ``transpose``:
    (n,) bool; with the flips it makes all right angles. ``tone``: (n, 8) in [-1, 1], see
    `imagery`. ``side``: of the patch in source pixels.
    """

    index: Tensor
    place: Tensor
    flip: Tensor
    transpose: Tensor
    tone: Tensor
    side: int

    def part(self, rank: int, world: int) -> Draw:
        """The share of one of ``world`` processes: consecutive samples."""
        n = len(self.index) // world
        chosen = slice(rank * n, (rank + 1) * n)
        tensors = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "side"}
        return Draw(**tensors, side=self.side)


def random_state(*parts: object) -> torch.Generator:
    """A generator seeded by a hash of the parts, such as (seed, "draw", step)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_batch(
    config: AugmentConfig, index: Tensor, random: torch.Generator, *, smallest: int
) -> Draw:
    """Draws one batch for the pairs ``index``; ``smallest`` side in pixels bounds the patch."""
    n = len(index)
    low, high = config.scale
    scale = low + (high - low) * float(torch.rand(1, generator=random))
    place = torch.rand(n, 2, generator=random)
    flip = torch.rand(n, 2, generator=random) < 0.5
    transpose = torch.rand(n, generator=random) < 0.5
    if config.flips != "both" and not config.right_angles:
        flip[:, 0] = False
    if config.flips == "none":
        flip[:, 1] = flip[:, 0] ^ transpose  # what is left of the eight moves are the rotations
    if not config.right_angles:
        transpose[:] = False
        if config.flips == "none":
            flip[:] = False
    tone = torch.rand(n, DRAWN, generator=random) * 2 - 1
    side = min(round(config.crop * scale), smallest)
    return Draw(index, place, flip, transpose, tone, side)


def patch_indices(draw: Draw, offset: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Where the pixels of the patches lie in the flat store: (n, side, side) int64.

    Both images of a pair lie at the same places of their stores, so one index moves both.

    Args:
        draw: the draw; its tensors on the device of the others.
        offset: (n,) int64, first pixel of each sample's image.
        height: (n,) int64 of each image.
        width: (n,) int64 of each image.
    """
    side = draw.side
    first_row = (draw.place[:, 0].double() * (height - side + 1)).long()
    first_col = (draw.place[:, 1].double() * (width - side + 1)).long()
    step = torch.arange(side, device=offset.device)
    rows = torch.where(draw.flip[:, :1], side - 1 - step, step) + first_row[:, None]
    cols = torch.where(draw.flip[:, 1:], side - 1 - step, step) + first_col[:, None]
    flat = offset[:, None, None] + rows[:, :, None] * width[:, None, None] + cols[:, None, :]
    return torch.where(draw.transpose[:, None, None], flat.transpose(1, 2), flat)


def to_network(patches: Tensor, crop: int, *, smooth: bool) -> Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, crop, crop) float32 in [-1, 1], channels last.

    ``smooth`` interpolates (imagery); without it the nearest pixel is taken, so that a map keeps
    its colours.
    """
    x = patches.permute(0, 3, 1, 2).float() / 127.5 - 1
    if x.shape[-1] == crop:
        return x
    if smooth:
        return functional.interpolate(x, size=crop, mode="bilinear", antialias=True)
    return functional.interpolate(x, size=crop, mode="nearest-exact")
