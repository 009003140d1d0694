"""The random draw that varies a batch of pairs, and what it does to pixels.

A draw is a pure function of (seed, step): a resumed run sees the pairs that the straight run saw,
and several processes can each take their part of one draw.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from tilemapper.training.agreement import EIGHTHS
from tilemapper.training.config import AugmentConfig
from tilemapper.training.imagery import numbers_drawn
from tilemapper.training.turning import side_to_cut

# In eighths: neighbours share a quarter of a patch or more, as tiles of 256 px do by 64.
MOST_APART = 6


@dataclass(frozen=True)
class Draw:
    """Random numbers of one batch of n samples, on the host.

    ``index``: (n,) int64, the pair. ``place``: (n, 2) in [0, 1), where the patch lies between
    its first and last position. ``flip``: (n, 2) bool, vertical and horizontal. ``transpose``:
    (n,) bool; with the flips it makes all right angles. ``tone``: (n, 8 to 10) in [-1, 1],
    see `imagery`. ``side``: of the patch in source pixels. ``apart``: rows and columns in eighths
    of the patch, as the network sees it, by which each odd sample lies beyond the even one before
    it, of which it is the neighbour; None where all samples are drawn by themselves. ``angle``:
    radians by which what is cut is turned besides, ``upright``: its side in source pixels then.
    """

    index: Tensor
    place: Tensor
    flip: Tensor
    transpose: Tensor
    tone: Tensor
    side: int
    apart: tuple[int, int] | None = None
    angle: float = 0.0
    upright: int = 0

    def part(self, rank: int, world: int) -> Draw:
        """The share of one of ``world`` processes: consecutive samples."""
        n = len(self.index) // world
        chosen = slice(rank * n, (rank + 1) * n)
        return replace(self, **{name: getattr(self, name)[chosen] for name in _TENSORS})

    def to(self, device: torch.device) -> Draw:
        """The same on a device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS}
        return replace(self, **moved)


_TENSORS = ("index", "place", "flip", "transpose", "tone")


def random_state(*parts: object) -> torch.Generator:
    """A generator seeded by a hash of the parts, such as (seed, "draw", step)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_batch(
    config: AugmentConfig,
    index: Tensor,
    random: torch.Generator,
    *,
    smallest: int,
    neighbours: bool = False,
) -> Draw:
    """Draws one batch for the pairs ``index``; ``smallest`` side in pixels bounds the patch.

    With ``neighbours`` samples 2i and 2i + 1 (``index`` names the same pair for both) are patches
    that overlap, moved alike and each with a tone of its own. The patch is then a multiple of
    eight pixels, so that their shared ground is the same pixels in both, and leaves an eighth of
    the smallest image free.
    """
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
    tone = torch.rand(n, numbers_drawn(config), generator=random) * 2 - 1
    if not neighbours:
        side = min(round(config.crop * scale), smallest)
        angle = _angle(config, random)
        cut = side_to_cut(side, angle)
        return Draw(index, place, flip, transpose, tone, cut, angle=angle, upright=side)
    eighth = min(round(config.crop * scale / EIGHTHS), smallest // (EIGHTHS + 1))
    furthest = min(MOST_APART, smallest // eighth - EIGHTHS)
    steps, axis = (int(torch.randint(n, (1,), generator=random)) for n in (furthest, 2))
    even = torch.arange(n) // 2 * 2
    apart = (0, steps + 1) if axis else (steps + 1, 0)
    side = EIGHTHS * eighth
    return Draw(index, place[even], flip[even], transpose[even], tone, side, apart)


def _angle(config: AugmentConfig, random: torch.Generator) -> float:
    """Radians; 0 for every second batch, whose pixels stay as they are."""
    if not config.rotation:
        return 0.0
    turned, share = torch.rand(2, generator=random).tolist()
    return math.radians(config.rotation) * (2 * share - 1) if turned < 0.5 else 0.0


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
    first_row, first_col = _first(draw, height, width)
    step = torch.arange(side, device=offset.device)
    rows = torch.where(draw.flip[:, :1], side - 1 - step, step) + first_row[:, None]
    cols = torch.where(draw.flip[:, 1:], side - 1 - step, step) + first_col[:, None]
    flat = offset[:, None, None] + rows[:, :, None] * width[:, None, None] + cols[:, None, :]
    return torch.where(draw.transpose[:, None, None], flat.transpose(1, 2), flat)


def cut_patches(
    pixels: Tensor, draw: Draw, offset: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """The patches themselves from a store in the host's memory; a tenth of the time of indices.

    Args:
        pixels: (total pixels, ...) uint8.
        draw: the draw.
        offset: (n,) int64 as for `patch_indices`, on the host.
        height: likewise.
        width: likewise.

    Returns:
        (n, side, side, ...) uint8.
    """
    side = draw.side
    out = pixels.new_empty((len(offset), side, side, *pixels.shape[1:]))
    tables = (offset, height, width, *_first(draw, height, width), draw.flip, draw.transpose)
    rows = zip(out, *(table.tolist() for table in tables), strict=True)
    for into, start, h, w, row, col, flip, transpose in rows:
        image = pixels[start : start + h * w].view(h, w, *pixels.shape[1:])
        patch = image[row : row + side, col : col + side]
        turned = [axis for axis in (0, 1) if flip[axis]]
        patch = patch.flip(turned) if turned else patch
        into.copy_(patch.transpose(0, 1) if transpose else patch)
    return out


def _first(draw: Draw, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """First row and first column of each patch, (n,) int64."""
    place = draw.place.double()
    steps, beyond = _steps(draw)
    rows, cols = (
        (place[:, axis] * (length - steps[:, axis] - draw.side + 1)).long()
        + steps[:, axis] * beyond[:, axis]
        for axis, length in enumerate((height, width))
    )
    return rows, cols


def _steps(draw: Draw) -> tuple[Tensor, Tensor]:
    """How far neighbours lie apart in source pixels by axis, and which sample is the farther one.

    Both (n, 2): int64, the same for both of a couple, and bool. Flips and the transposition turn
    what the network will see back into the image.
    """
    if draw.apart is None:
        return torch.zeros_like(draw.flip, dtype=torch.int64), torch.zeros_like(draw.flip)
    rows, cols = (eighths * draw.side // EIGHTHS for eighths in draw.apart)
    # Numbers in place of tensors: to send one would wait for all that the device has to do.
    turned = draw.transpose
    steps = torch.stack([torch.where(turned, cols, rows), torch.where(turned, rows, cols)], 1)
    odd = torch.arange(len(draw.flip), device=draw.flip.device) % 2 == 1
    return steps, odd[:, None] ^ draw.flip


def to_network(patches: Tensor, crop: int) -> Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, crop, crop) float32 in [-1, 1], channels last.

    Resized by interpolation to whole grey levels, as a raster's are.
    """
    x = patches.permute(0, 3, 1, 2)
    if x.shape[-1] != crop:
        # A CPU resizes bytes ten times as fast as float32; other devices do not know bytes here.
        x = x if x.device.type == "cpu" else x.float()
        x = functional.interpolate(x, size=crop, mode="bilinear", antialias=True)
        x = x.round() if x.is_floating_point() else x
    return x.float().div_(127.5).sub_(1)


def map_to_network(patches: Tensor, crop: int) -> Tensor:
    """The counterpart for maps, which takes the nearest pixel: a map keeps its colours.

    (n, side, side, 3) uint8 as above; of classes (n, side, side) uint8 -> (n, crop, crop) uint8.
    """
    side = patches.shape[1]
    if side != crop:
        at = ((torch.arange(crop, device=patches.device) + 0.5) * (side / crop)).long()
        patches = patches.index_select(1, at).index_select(2, at)
    return to_network(patches, crop) if patches.dim() == 4 else patches
