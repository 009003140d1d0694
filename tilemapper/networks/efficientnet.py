"""A U-Net whose encoder is EfficientNet-Lite0, so that it can begin with what ImageNet taught.

Encoder: the table of Tan and Le 2019 (EfficientNet-B0) as its authors' "lite" variant has it:
no squeeze-and-excitation, ReLU6, stem and last stage at their least width. The classifier's 1x1
convolution to 1280 channels and what follows are left out. Its weights expect images in [-1, 1],
which is what generators are given here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemapper.networks.arguments import EfficientNetArguments, Head
from tilemapper.networks.layers import ConvNorm, ShuffleHead, conv_norm, doubling, ending

# Channels, blocks, stride of the first, kernel, expansion: Tan and Le 2019, table 1.
STAGES = (
    (16, 1, 1, 3, 1),
    (24, 2, 2, 3, 6),
    (40, 2, 2, 5, 6),
    (80, 3, 2, 3, 6),
    (112, 3, 1, 5, 6),
    (192, 4, 2, 5, 6),
    (320, 1, 1, 3, 6),
)
STEM = 32
# The stages that are the last of their size, from half a side to a sixteenth: what skips carry.
_SKIPPED = (0, 1, 2, 4)
# Of the encoder's norms, as published; their small variances make it count.
_EPSILON = 1e-3


class InvertedBlock(nn.Module):
    """Widened by 1x1, filtered channel by channel, narrowed by 1x1: (n, in, h, w) -> (n, out, ...).

    The input is added where the shapes agree (MobileNetV2, Sandler et al. 2018).
    """

    def __init__(self, inner: int, outer: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.expand = _encoding(inner, wide, 1) if expansion > 1 else None
        self.depthwise = _encoding(wide, wide, kernel, stride=stride, groups=wide)
        self.project = _encoding(wide, outer, 1)
        self.adds = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        wide = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        out: Tensor = self.project(functional.relu6(self.depthwise(wide), inplace=True))
        return x + out if self.adds else out


class Encoder(nn.Module):
    """(n, bands, h, w) in [-1, 1] -> its features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the side."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = _encoding(bands, STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        inner = STEM
        for outer, count, stride, kernel, expansion in STAGES:
            blocks = []
            for number in range(count):
                step = stride if number == 0 else 1
                blocks.append(
                    InvertedBlock(inner, outer, kernel=kernel, stride=step, expansion=expansion)
                )
                inner = outer
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """See the class."""
        x = functional.relu6(self.stem(x), inplace=True)
        features = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _SKIPPED:
                features.append(x)
        return [*features, x]


class EfficientUNet(nn.Module):
    """EfficientNet-Lite0 and a decoder: (n, bands, h, w) in [-1, 1] -> (n, channels, h, w).

    ``fine`` sees every pixel of the image and joins the first skip: the encoder's stem alone
    would halve the side before it has looked at a line of one pixel.
    """

    def __init__(self, arguments: EfficientNetArguments, *, channels: int, head: Head) -> None:
        super().__init__()
        width = arguments.width
        widths = (4 * width, 2 * width, 3 * width // 2, width)
        skips = [STAGES[number][0] for number in reversed(_SKIPPED)]
        skips[-1] += width
        self.encoder = Encoder(arguments.bands)
        self.unshuffle = nn.PixelUnshuffle(2)
        self.fine = conv_norm(4 * arguments.bands, width, 3, norm="batch")
        inner = (STAGES[-1][0], *widths[:-1])
        self.ups = nn.ModuleList(
            doubling(a, b, upsample="resize", norm="batch")
            for a, b in zip(inner, widths, strict=True)
        )
        self.merges = nn.ModuleList(
            conv_norm(a + b, a, 3, norm="batch") for a, b in zip(widths, skips, strict=True)
        )
        self.drop = nn.Dropout(arguments.dropout) if arguments.dropout else nn.Identity()
        self.head = ShuffleHead(width, channels)
        self.ending = ending(head)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        fine = functional.relu(self.fine(self.unshuffle(x)), inplace=True)
        first, *skips, x = self.encoder(x)
        skips.insert(0, torch.cat([first, fine], dim=1))
        x = self.drop(x)
        for up, merge in zip(self.ups, self.merges, strict=True):
            x = torch.cat([functional.relu(up(x), inplace=True), skips.pop()], dim=1)
            x = functional.relu(merge(x), inplace=True)
        out: Tensor = self.ending(self.head(x))
        return out


def _encoding(inner: int, outer: int, kernel: int, *, stride: int = 1, groups: int = 1) -> ConvNorm:
    """A convolution of the encoder, with its norm.

    Padded alike on all sides. The published one pads the right and the bottom alone where it
    halves: the same function of an image that is moved by a pixel, and a copy of it more.
    """
    conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    return ConvNorm(conv, nn.BatchNorm2d(outer, eps=_EPSILON))
