"""The ResNet generator of CycleGAN (Zhu et al. 2017): stride 4, nine residual blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tilemapper.networks.arguments import Head, ResNetArguments
from tilemapper.networks.layers import ConvNorm, conv_norm, doubling, ending, make_norm


class ResNetBlock(nn.Module):
    """x + norm(conv(dropout(relu(norm(conv(x)))))): (n, width, h, w) -> the same."""

    def __init__(self, width: int, arguments: ResNetArguments) -> None:
        super().__init__()
        a = arguments
        self.first = conv_norm(width, width, 3, padding_mode=a.padding, norm=a.norm)
        self.drop = nn.Dropout(a.dropout) if a.dropout else nn.Identity()
        self.second = conv_norm(width, width, 3, padding_mode=a.padding, norm=a.norm)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = x + self.second(self.drop(functional.relu(self.first(x), inplace=True)))
        return out


class ResNet(nn.Module):
    """ResNet: (n, bands, h, w) in [-1, 1] -> (n, channels, h, w); h, w multiples of 4."""

    def __init__(self, arguments: ResNetArguments, *, channels: int, head: Head) -> None:
        super().__init__()
        a = arguments
        w = a.width
        self.stem = conv_norm(a.bands, w, 7, padding_mode=a.padding, norm=a.norm)
        self.downs = nn.ModuleList(
            conv_norm(outer, 2 * outer, 3, stride=2, norm=a.norm) for outer in (w, 2 * w)
        )
        self.blocks = nn.Sequential(*(ResNetBlock(4 * w, a) for _ in range(a.blocks)))
        self.ups = nn.ModuleList(_up(2 * outer, outer, a) for outer in (2 * w, w))
        self.head = conv_norm(w, channels, 7, padding_mode=a.padding)
        self.ending = ending(head)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = functional.relu(self.stem(x), inplace=True)
        for down in self.downs:
            x = functional.relu(down(x), inplace=True)
        x = self.blocks(x)
        for up in self.ups:
            x = functional.relu(up(x), inplace=True)
        out: Tensor = self.ending(self.head(x))
        return out


def _up(inner: int, outer: int, a: ResNetArguments) -> ConvNorm:
    if a.upsample == "resize":
        return doubling(inner, outer, upsample="resize", norm=a.norm)
    bias = a.norm == "none"
    conv = nn.ConvTranspose2d(inner, outer, 3, stride=2, padding=1, output_padding=1, bias=bias)
    return ConvNorm(conv, make_norm(a.norm, outer))
