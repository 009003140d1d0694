"""A compact residual U-Net of stride 16 or 32, without a 1x1 bottleneck.

Its output moves with its input better than the deep U-Net's (smaller grid), it has no transposed
convolution (no checkerboard), and all its norms fold away.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemapper.networks.arguments import Head, Norm, ResidualArguments
from tilemapper.networks.layers import ShuffleHead, conv_norm, doubling, ending


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))): (n, width, h, w) -> the same."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.first = conv_norm(width, width, 3, norm=norm)
        self.second = conv_norm(width, width, 3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        inner = self.second(functional.relu(self.first(x), inplace=True))
        return functional.relu(x + inner, inplace=True)


class ResidualUNet(nn.Module):
    """Residual U-Net: (n, bands, h, w) in [-1, 1] -> (n, channels, h, w).

    The stem moves each 2x2 group of pixels into channels, so that the costly first level runs at
    half size; the head moves them back.
    """

    def __init__(self, arguments: ResidualArguments, *, channels: int, head: Head) -> None:
        super().__init__()
        a = arguments
        levels = a.stride.bit_length() - 1
        widths = [a.width * min(2**level, 8) for level in range(levels)]
        counts = [a.first_blocks, *[a.blocks] * (levels - 2), a.bottom_blocks]
        self.unshuffle = nn.PixelUnshuffle(2)
        self.stem = conv_norm(4 * a.bands, widths[0], 3, norm=a.norm)
        self.levels = nn.ModuleList(
            _blocks(width, count, a.norm) for width, count in zip(widths, counts, strict=True)
        )
        self.downs = nn.ModuleList(
            conv_norm(outer, inner, 3, stride=2, norm=a.norm)
            for outer, inner in itertools.pairwise(widths)
        )
        upward = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.ups = nn.ModuleList(
            doubling(inner, outer, upsample="resize", norm=a.norm) for inner, outer in upward
        )
        self.merges = nn.ModuleList(
            conv_norm(2 * outer, outer, 1, norm=a.norm) for _, outer in upward
        )
        self.up_levels = nn.ModuleList(_blocks(outer, a.up_blocks, a.norm) for _, outer in upward)
        self.drop = nn.Dropout(a.dropout) if a.dropout else nn.Identity()
        self.head = ShuffleHead(widths[0], channels)
        self.ending = ending(head)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.levels[0](functional.relu(self.stem(self.unshuffle(x)), inplace=True))
        skips = []
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            skips.append(x)
            x = level(functional.relu(down(x), inplace=True))
        x = self.drop(x)
        for up, merge, level in zip(self.ups, self.merges, self.up_levels, strict=True):
            x = torch.cat([functional.relu(up(x), inplace=True), skips.pop()], dim=1)
            x = level(functional.relu(merge(x), inplace=True))
        out: Tensor = self.ending(self.head(x))
        return out


def _blocks(width: int, count: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, norm) for _ in range(count)))
