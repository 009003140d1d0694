"""The PatchGAN discriminator: judges overlapping patches, at one scale or at two."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from tilemapper.networks.arguments import PatchGANArguments
from tilemapper.networks.layers import ConvNorm, conv_norm, initialise


class Verdict(NamedTuple):
    """What a discriminator says at one scale.

    ``logits``: (n, 1, h, w), one a patch, before any sigmoid. ``features``: the activations of
    the layers before, outermost first, for feature matching.
    """

    logits: Tensor
    features: tuple[Tensor, ...]


class PatchGAN(nn.Module):
    """PatchGAN at one scale: (n, bands, h, w) -> one Verdict, in a list.

    ``n_layers`` convolutions of stride 2, then two of stride 1, all 4x4 with padding 1; the first
    and the last have a bias and no norm.
    """

    def __init__(self, arguments: PatchGANArguments) -> None:
        super().__init__()
        a = arguments
        widths = [a.bands, *(a.width * min(2**layer, 8) for layer in range(a.n_layers + 1)), 1]
        last = a.n_layers + 1
        self.layers = nn.ModuleList(
            conv_norm(
                widths[layer],
                widths[layer + 1],
                4,
                stride=2 if layer < a.n_layers else 1,
                padding=1,
                norm="none" if layer in (0, last) else a.norm,
            )
            for layer in range(a.n_layers + 2)
        )
        initialise(self)
        if a.spectral:  # after the weights are drawn: it keeps them as its own parameter
            for layer in self.layers:
                assert isinstance(layer, ConvNorm)
                layer.conv = spectral_norm(layer.conv)

    def forward(self, x: Tensor) -> list[Verdict]:
        """See the class."""
        features = []
        for layer in self.layers[:-1]:
            x = functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [Verdict(self.layers[-1](x), tuple(features))]


class TwoScalePatchGAN(nn.Module):
    """Two PatchGANs, one on the images and one on them at half size: a list of two Verdicts."""

    def __init__(self, arguments: PatchGANArguments) -> None:
        super().__init__()
        self.whole = PatchGAN(arguments)
        self.reduced = PatchGAN(arguments)

    def forward(self, x: Tensor) -> list[Verdict]:
        """See the class."""
        halves = functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        verdicts: list[Verdict] = self.whole(x) + self.reduced(halves)
        return verdicts


def receptive_field(n_layers: int) -> int:
    """Side in pixels of the patch that one logit sees: 16, 34, 70, 142, 286 for 1 to 5 layers."""
    field = 1
    for stride in [1, 1] + [2] * n_layers:  # from the logit back to the image
        field = (field - 1) * stride + 4
    return field
