"""What all networks are made of: a convolution with its norm, the ending, and the initial weights.

Every normalised convolution is one `ConvNorm`, whatever the architecture: folding, importing and
saving then know where a norm belongs without knowing the network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemapper.networks.arguments import Head, Norm, Padding, Upsample


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """The norm layer of that name; ``instance`` has no parameters, ``instance_affine`` has both."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    return nn.InstanceNorm2d(channels, affine=norm == "instance_affine")


class ConvNorm(nn.Module):
    """Convolution, then norm: (n, in, h, w) -> (n, out, h', w').

    With ``resize`` the input is first doubled by nearest neighbour (resize-convolution: no
    checkerboard). The convolution has a bias only where no norm would take it out again.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, *, resize: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.resize = resize

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.resize:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        out: Tensor = self.norm(self.conv(x))
        return out


def conv_norm(
    bands: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    padding_mode: Padding = "zeros",
    norm: Norm = "none",
) -> ConvNorm:
    """A convolution with its norm; ``padding`` keeps the size at stride 1 unless given."""
    conv = nn.Conv2d(
        bands,
        channels,
        kernel,
        stride=stride,
        padding=kernel // 2 if padding is None else padding,
        padding_mode=padding_mode,
        bias=norm == "none",
    )
    return ConvNorm(conv, make_norm(norm, channels))


def doubling(bands: int, channels: int, *, upsample: Upsample, norm: Norm = "none") -> ConvNorm:
    """Doubles height and width: transposed 4x4 convolution, or nearest neighbour and 3x3."""
    bias = norm == "none"
    if upsample == "resize":
        conv: nn.Module = nn.Conv2d(bands, channels, 3, padding=1, bias=bias)
    else:
        conv = nn.ConvTranspose2d(bands, channels, 4, stride=2, padding=1, bias=bias)
    return ConvNorm(conv, make_norm(norm, channels), resize=upsample == "resize")


def ending(head: Head) -> nn.Module:
    """Tanh after an ``rgb`` head; a ``palette`` head gives its class logits as they are."""
    return nn.Tanh() if head == "rgb" else nn.Identity()


class ShuffleHead(nn.Module):
    """3x3 convolution to four values a channel, shuffled to twice the size: (n, c, 2h, 2w)."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bands, 4 * channels, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.shuffle(self.conv(x))
        return out

    def repeat_phases(self) -> None:
        """Gives the four pixels of a group the same weights, so that training starts smooth."""
        with torch.no_grad():
            self.conv.weight.copy_(self.conv.weight[::4].repeat_interleave(4, dim=0))


def initialise(network: nn.Module, *, std: float = 0.02) -> nn.Module:
    """Draws the paper's initial weights in place: N(0, 0.02), norm gains N(1, 0.02), biases 0.

    A network on the meta device has no values, so nothing is drawn for it: torch would load its
    whole compiler to draw nothing, a fifth of the processor time of a render of 300 px a side.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return network
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ShuffleHead):
            module.repeat_phases()
    return network
