"""From an architecture's name and arguments, as they stand in a card or a job, to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from tilemapper.errors import ModelError
from tilemapper.networks.arguments import (
    MOST_CHANNELS,
    Head,
    PatchGANArguments,
    generator_arguments,
    parse,
)
from tilemapper.networks.efficientnet import EfficientUNet
from tilemapper.networks.layers import initialise
from tilemapper.networks.patchgan import PatchGAN, TwoScalePatchGAN
from tilemapper.networks.residual import ResidualUNet
from tilemapper.networks.resnet import ResNet
from tilemapper.networks.standin import Constant, Identity
from tilemapper.networks.unet import UNet

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "residual": ResidualUNet,
    "resnet": ResNet,
    "efficientnet": EfficientUNet,
    "identity": Identity,
    "constant": Constant,
}


def build_generator(
    architecture: str,
    arguments: Mapping[str, Any],
    channels: int,
    head: Head | None = None,
) -> nn.Module:
    """A generator with fresh initial weights: (n, bands, h, w) in [-1, 1] -> (n, channels, h, w).

    ``head`` "rgb" ends in tanh, "palette" in logits; None means rgb for 3 channels, palette for
    any other number. Raises ModelError for an unknown architecture or argument.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise ModelError(
            f"{architecture}: {channels} output channels, 1 to {MOST_CHANNELS} are possible; "
            "check the palette"
        )
    kind = head or ("rgb" if channels == 3 else "palette")
    parsed = generator_arguments(architecture, arguments)
    return initialise(_NETWORKS[architecture](parsed, channels=channels, head=kind))


def build_discriminator(arguments: Mapping[str, Any]) -> nn.Module:
    """A discriminator with fresh initial weights: (n, bands, h, w) -> list of Verdicts.

    Raises ModelError for a wrong or unknown argument.
    """
    parsed = parse(PatchGANArguments, arguments, where="discriminator")
    return TwoScalePatchGAN(parsed) if parsed.scales == 2 else PatchGAN(parsed)
