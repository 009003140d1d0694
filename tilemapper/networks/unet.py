"""The U-Net of pix2pix (Isola et al. 2017), at any width and depth.

One canonical network; the options are what the published layouts differ in, so that their
checkpoints load exactly. Skips are concatenated as [up, skip].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemapper.networks.arguments import Head, UNetArguments
from tilemapper.networks.layers import conv_norm, doubling, ending


class UNet(nn.Module):
    """U-Net: (n, bands, h, w) in [-1, 1] -> (n, channels, h, w); h, w multiples of 2**depth.

    ``downs`` runs from the outermost level to the innermost, ``ups`` back; ``head`` is the last
    up. The first, the innermost and the last convolution have a bias and no norm.
    """

    def __init__(self, arguments: UNetArguments, *, channels: int, head: Head) -> None:
        super().__init__()
        a = arguments
        widths = [a.width * min(2**level, 8) for level in range(a.depth)]
        last = a.depth - 1
        self.downs = nn.ModuleList(
            conv_norm(
                widths[level - 1] if level else a.bands,
                widths[level],
                4,
                stride=2,
                padding=1,
                padding_mode=a.bottleneck_padding if level == last else a.padding,
                norm="none" if level in (0, last) else a.norm,
            )
            for level in range(a.depth)
        )
        self.ups = nn.ModuleList(
            doubling(
                widths[level] * (1 if level == last else 2),
                widths[level - 1],
                upsample=a.upsample,
                norm=a.norm,
            )
            for level in range(last, 0, -1)
        )
        self.drops = nn.ModuleList(
            nn.Dropout(a.dropout) if level in _dropout_levels(a) and a.dropout else nn.Identity()
            for level in range(last, 0, -1)
        )
        self.head = doubling(2 * widths[0], channels, upsample=a.upsample)
        self.ending = ending(head)
        self.relu_skips = a.skip == "relu"

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        skips = []
        for down in self.downs[:-1]:
            x = functional.leaky_relu(down(x), 0.2, inplace=True)
            skips.append(x)
        x = functional.relu(self.downs[-1](x), inplace=True)
        for up, drop in zip(self.ups, self.drops, strict=True):
            if self.relu_skips:
                # relu(leaky(h)) is relu(h), and relu and dropout may change places: so one relu,
                # in place, serves both halves, and skips need no copy.
                x = functional.relu(torch.cat([drop(up(x)), skips.pop()], dim=1), inplace=True)
            else:
                x = torch.cat([drop(functional.relu(up(x), inplace=True)), skips.pop()], dim=1)
        out: Tensor = self.ending(self.head(x))
        return out


def _dropout_levels(a: UNetArguments) -> range:
    return range(a.depth - 3, a.depth) if a.dropout_levels == "inner" else range(4, a.depth - 1)
