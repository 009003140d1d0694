"""Tiny re-implementations of the foreign generators, with their key names, for golden tests."""

from __future__ import annotations

import torch
from torch import nn


class JunyanzBlock(nn.Module):
    """One level of the nested U-Net; ``inner`` is the next level or None at the innermost."""

    def __init__(self, outer_width, inner_width, inner, *, bands=None, norm=nn.BatchNorm2d):
        super().__init__()
        self.outermost = bands is not None
        bias = norm is nn.InstanceNorm2d
        down = nn.Conv2d(bands or outer_width, inner_width, 4, 2, 1, bias=bias)
        up_in = inner_width if inner is None else 2 * inner_width
        if self.outermost:
            up = nn.ConvTranspose2d(up_in, outer_width, 4, 2, 1)
            layers = [down, inner, nn.ReLU(True), up, nn.Tanh()]
        else:
            up = nn.ConvTranspose2d(up_in, outer_width, 4, 2, 1, bias=bias)
            begin = [nn.LeakyReLU(0.2, True), down]
            end = [nn.ReLU(True), up, norm(outer_width)]
            middle = [] if inner is None else [norm(inner_width), inner]
            layers = [*begin, *middle, *end]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        # The in-place LeakyReLU changes x before it is concatenated, as in the original.
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class JunyanzUNet(nn.Module):
    def __init__(self, width=8, depth=8, norm=nn.BatchNorm2d):
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(depth)]
        block = None
        for level in range(depth - 1, 0, -1):
            block = JunyanzBlock(widths[level - 1], widths[level], block, norm=norm)
        self.model = JunyanzBlock(3, widths[0], block, bands=3, norm=norm)

    def forward(self, x):
        return self.model(x)


class JunyanzResNetBlock(nn.Module):
    def __init__(self, width, norm, dropout):
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(width)]
        layers += [nn.ReLU(True), *([nn.Dropout(0.5)] if dropout else [])]
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), norm(width)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class JunyanzResNet(nn.Module):
    def __init__(self, width=8, blocks=9, norm=nn.InstanceNorm2d, dropout=False):
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=bias), norm(width)]
        layers += [nn.ReLU(True)]
        for w in (width, 2 * width):
            layers += [nn.Conv2d(w, 2 * w, 3, 2, 1, bias=bias), norm(2 * w), nn.ReLU(True)]
        layers += [JunyanzResNetBlock(4 * width, norm, dropout) for _ in range(blocks)]
        for w in (2 * width, width):
            up = nn.ConvTranspose2d(2 * w, w, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, norm(w), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class FlatBlock(nn.Module):
    def __init__(self, bands, width, *, down, dropout=False):
        super().__init__()
        if down:
            conv = nn.Conv2d(bands, width, 4, 2, 1, bias=False, padding_mode="reflect")
        else:
            conv = nn.ConvTranspose2d(bands, width, 4, 2, 1, bias=False)
        end = nn.LeakyReLU(0.2) if down else nn.ReLU()
        self.conv = nn.Sequential(conv, nn.BatchNorm2d(width), end)
        self.dropout = nn.Dropout(0.5) if dropout else nn.Identity()

    def forward(self, x):
        return self.dropout(self.conv(x))


class AladdinperssonUNet(nn.Module):
    def __init__(self, width=8, bottleneck_padding="zeros"):
        super().__init__()
        w = [width * min(2**level, 8) for level in range(8)]
        first = nn.Conv2d(3, w[0], 4, 2, 1, padding_mode="reflect")
        self.initial_down = nn.Sequential(first, nn.LeakyReLU(0.2))
        for k in range(1, 7):
            setattr(self, f"down{k}", FlatBlock(w[k - 1], w[k], down=True))
        lowest = nn.Conv2d(w[6], w[7], 4, 2, 1, padding_mode=bottleneck_padding)
        self.bottleneck = nn.Sequential(lowest, nn.ReLU())
        for k in range(1, 8):
            bands = w[7] if k == 1 else 2 * w[8 - k]
            setattr(self, f"up{k}", FlatBlock(bands, w[7 - k], down=False, dropout=k <= 3))
        self.final_up = nn.Sequential(nn.ConvTranspose2d(2 * w[0], 3, 4, 2, 1), nn.Tanh())

    def forward(self, x):
        skips = [self.initial_down(x)]
        for k in range(1, 7):
            skips.append(getattr(self, f"down{k}")(skips[-1]))
        x = self.up1(self.bottleneck(skips[-1]))
        for k in range(2, 8):
            x = getattr(self, f"up{k}")(torch.cat([x, skips[8 - k]], 1))
        return self.final_up(torch.cat([x, skips[0]], 1))


# Input, output, kernel, stride, expansion of each block, as Google's EfficientNet-Lite0 has them.
LITE_BLOCKS = [
    (32, 16, 3, 1, 1),
    *[(16, 24, 3, 2, 6), (24, 24, 3, 1, 6)],
    *[(24, 40, 5, 2, 6), (40, 40, 5, 1, 6)],
    *[(40, 80, 3, 2, 6), (80, 80, 3, 1, 6), (80, 80, 3, 1, 6)],
    *[(80, 112, 5, 1, 6), (112, 112, 5, 1, 6), (112, 112, 5, 1, 6)],
    *[(112, 192, 5, 2, 6), (192, 192, 5, 1, 6), (192, 192, 5, 1, 6), (192, 192, 5, 1, 6)],
    (192, 320, 3, 1, 6),
]


class LiteBlock(nn.Module):
    def __init__(self, bands, width, kernel, stride, expansion):
        super().__init__()
        wide = bands * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(bands, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(
            wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False
        )
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = nn.Conv2d(wide, width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width, eps=1e-3)
        self.skip = stride == 1 and bands == width

    def forward(self, x):
        y = x
        if hasattr(self, "_expand_conv"):
            y = self._bn0(self._expand_conv(y)).clamp(0, 6)
        y = self._bn1(self._depthwise_conv(y)).clamp(0, 6)
        y = self._bn2(self._project_conv(y))
        return x + y if self.skip else y


class EfficientNetLite(nn.Module):
    """The features before the classifier; where it halves, it pads all sides alike as ours does."""

    def __init__(self):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList(LiteBlock(*block) for block in LITE_BLOCKS)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 10)

    def forward(self, x):
        x = self._bn0(self._conv_stem(x)).clamp(0, 6)
        for block in self._blocks:
            x = block(x)
        return x


def randomise(network, seed=0):
    """Random weights and norm statistics of a size that keeps all activations in play."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.is_floating_point():
            fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 4
            tensor.normal_(0.0, 1.5 / fan_in**0.5, generator=generator)
    return network
