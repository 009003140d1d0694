"""From an architecture's name and arguments, as they stand in a card or a job, to a network."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import nn

from tilemapper.errors import ModelError
from tilemapper.networks.layers import Arguments, Head, initialise
from tilemapper.networks.patchgan import PatchGAN, PatchGANArguments, TwoScalePatchGAN
from tilemapper.networks.residual import ResidualArguments, ResidualUNet
from tilemapper.networks.resnet import ResNet, ResNetArguments
from tilemapper.networks.standin import Constant, ConstantArguments, Identity, IdentityArguments
from tilemapper.networks.unet import UNet, UNetArguments

GENERATORS: dict[str, tuple[type[Arguments], Callable[..., nn.Module]]] = {
    "unet": (UNetArguments, UNet),
    "residual": (ResidualArguments, ResidualUNet),
    "resnet": (ResNetArguments, ResNet),
    "identity": (IdentityArguments, Identity),
    "constant": (ConstantArguments, Constant),
}
MOST_CHANNELS = 256

Parsed = TypeVar("Parsed", bound=BaseModel)


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
    return initialise(GENERATORS[architecture][1](parsed, channels=channels, head=kind))


def generator_arguments(architecture: str, arguments: Mapping[str, Any]) -> Any:
    """The arguments, checked and completed, as the architecture's `Arguments` class.

    Raises ModelError naming the first wrong one, and the nearest known name.
    """
    if architecture not in GENERATORS:
        raise ModelError(
            f"architecture {architecture!r}: unknown, one of {', '.join(GENERATORS)} is needed"
            f"{nearest(architecture, GENERATORS)}"
        )
    return parse(GENERATORS[architecture][0], arguments, where=architecture)


def build_discriminator(arguments: Mapping[str, Any]) -> nn.Module:
    """A discriminator with fresh initial weights: (n, bands, h, w) -> list of Verdicts.

    Raises ModelError for a wrong or unknown argument.
    """
    parsed = parse(PatchGANArguments, arguments, where="discriminator")
    return TwoScalePatchGAN(parsed) if parsed.scales == 2 else PatchGAN(parsed)


def parse(kind: type[Parsed], values: Mapping[str, Any], *, where: str) -> Parsed:
    """``values`` as a ``kind``; ModelError with one line about the first fault otherwise."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = [*kind.model_fields]
            what = f"unknown key {place}, known are {', '.join(known)}"
            raise ModelError(f"{where}: {what}{nearest(place, known)}") from None
        what = fault["msg"][:300].removeprefix("Value error, ")
        if not place:  # a contradiction between keys, in our own words
            raise ModelError(f"{where}: {_ended(what)}") from None
        found = "" if fault["type"] == "missing" else f" is {repr(fault['input'])[:80]}"
        raise ModelError(f"{where}: {place}{found}: {_ended(what)}") from None


def _ended(message: str) -> str:
    return message if ";" in message else f"{message}; correct it"


def nearest(word: str, known: Iterable[str]) -> str:
    """The ending of a message, with the nearest known word if one is near: a guess, a hint."""
    near = difflib.get_close_matches(word.rpartition(".")[2], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; correct it"
