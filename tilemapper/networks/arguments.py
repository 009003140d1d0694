"""Arguments of the networks as they stand in a card or a job, checked without loading torch.

Cards are read for every list of models and every run of an archive that has nothing to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tilemapper.errors import ModelError

MOST_CHANNELS = 256

Norm = Literal["batch", "instance", "instance_affine", "none"]
Upsample = Literal["transposed", "resize"]
Padding = Literal["zeros", "reflect"]
Head = Literal["rgb", "palette"]

Parsed = TypeVar("Parsed", bound=BaseModel)

_NEEDED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "tuple_type": "a list in brackets",
}
# Patterns of text in cards and job files, and what a message says of them in place of the pattern.
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"
WEIGHTS_FILE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$"
SHA256: Final = r"^[0-9a-f]{64}$"
_PATTERNS: Final = {
    NAME: "1 to 80 letters, digits, '.', '_' or '-' are needed, a letter or digit first",
    WEIGHTS_FILE: "the name of a .safetensors file beside the card is needed",
    SHA256: "a sha256 of 64 hexadecimal digits is needed, in lower case",
}


class Arguments(BaseModel):
    """Arguments of one architecture as they stand in a model card: closed, typed and bounded.

    The bounds keep a lying card from building a network that no machine holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @property
    def innermost_norm(self) -> Norm:
        """Of the innermost level, where a tile of the least size is a single pixel."""
        return "none"


class UNetArguments(Arguments):
    """Arguments of the U-Net. ``depth`` 7, 8, 9 reach 1x1 at 128, 256, 512 pixels.

    ``skip``: activation on the skip, ReLU as in junyanz or leaky as in aladdinpersson.
    ``padding``, ``bottleneck_padding``: of the down convolutions and of the innermost one.
    ``dropout_levels``: "inner" (the three innermost, the paper) or "middle" (junyanz).
    """

    width: Annotated[int, Field(ge=1, le=512)] = 64
    depth: Annotated[int, Field(ge=2, le=10)] = 8
    bands: Annotated[int, Field(ge=1, le=16)] = 3
    norm: Norm = "batch"
    upsample: Upsample = "transposed"
    skip: Literal["relu", "leaky"] = "relu"
    padding: Padding = "zeros"
    bottleneck_padding: Padding = "zeros"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    dropout_levels: Literal["inner", "middle"] = "inner"

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(2**self.depth)


class ResidualArguments(Arguments):
    """Arguments of the residual U-Net.

    ``width`` channels at half size, doubled at each level up to 8 times. Residual blocks:
    ``first_blocks`` at half size, ``blocks`` on the levels between, ``bottom_blocks`` at the
    lowest, ``up_blocks`` on each level on the way up.
    """

    width: Annotated[int, Field(ge=1, le=512)] = 32
    stride: Literal[16, 32] = 16
    bands: Annotated[int, Field(ge=1, le=16)] = 3
    norm: Norm = "batch"
    first_blocks: Annotated[int, Field(ge=0, le=32)] = 1
    blocks: Annotated[int, Field(ge=0, le=32)] = 2
    bottom_blocks: Annotated[int, Field(ge=0, le=32)] = 4
    up_blocks: Annotated[int, Field(ge=0, le=32)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def innermost_norm(self) -> Norm:
        """See `Arguments`."""
        return self.norm

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.stride


class ResNetArguments(Arguments):
    """Arguments of the ResNet; the defaults are CycleGAN's for 256 pixels."""

    width: Annotated[int, Field(ge=1, le=512)] = 64
    blocks: Annotated[int, Field(ge=0, le=64)] = 9
    bands: Annotated[int, Field(ge=1, le=16)] = 3
    norm: Norm = "instance"
    padding: Padding = "reflect"
    upsample: Upsample = "transposed"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def innermost_norm(self) -> Norm:
        """See `Arguments`."""
        return self.norm

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 4


class EfficientNetArguments(Arguments):
    """Arguments of the U-Net over EfficientNet-Lite0, whose own widths are fixed.

    ``width``: channels of the decoder at half size; 1.5, 2 and 4 times as many further in.
    """

    width: Annotated[int, Field(ge=2, le=512)] = 32
    bands: Annotated[int, Field(ge=1, le=16)] = 3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def innermost_norm(self) -> Norm:
        """See `Arguments`."""
        return "batch"

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 32


class IdentityArguments(Arguments):
    """``sleep_s``: seconds that every batch takes on top, to stand in for a slow network."""

    sleep_s: Annotated[float, Field(ge=0, le=3600)] = 0.0

    @property
    def multiple(self) -> int:
        """Any height and width will do."""
        return 1


class ConstantArguments(Arguments):
    """``value``: the grey level (0 to 255) of an rgb head, or the class of a palette head."""

    value: Annotated[int, Field(ge=0, le=255)] = 128

    @property
    def multiple(self) -> int:
        """Any height and width will do."""
        return 1


class PatchGANArguments(Arguments):
    """Arguments of the discriminator; the defaults are the paper's 70x70 on a pair of images.

    ``bands`` counts both images (6 for a conditional one, 3 for CycleGAN). ``scales`` 2 adds a
    second network on the images at half size.
    """

    width: Annotated[int, Field(ge=1, le=512)] = 64
    n_layers: Annotated[int, Field(ge=1, le=5)] = 3
    bands: Annotated[int, Field(ge=1, le=64)] = 6
    norm: Norm = "batch"
    spectral: bool = False
    scales: Literal[1, 2] = 1


# As cards and jobs name them; `build` knows the networks.
GENERATORS: dict[str, type[Arguments]] = {
    "unet": UNetArguments,
    "residual": ResidualArguments,
    "resnet": ResNetArguments,
    "efficientnet": EfficientNetArguments,
    "identity": IdentityArguments,
    "constant": ConstantArguments,
}


def generator_arguments(architecture: str, arguments: Mapping[str, Any]) -> Any:
    """The arguments, checked and completed, as the architecture's `Arguments` class.

    Raises ModelError naming the first wrong one, and the nearest known name.
    """
    if architecture not in GENERATORS:
        raise ModelError(
            f"architecture {architecture!r}: unknown, one of {', '.join(GENERATORS)} is needed"
            f"{nearest(architecture, GENERATORS)}"
        )
    return parse(GENERATORS[architecture], arguments, where=architecture)


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
        what = wanted(fault)[:300]
        if not place:  # a contradiction between keys, in our own words
            raise ModelError(f"{where}: {_ended(what)}") from None
        found = "" if fault["type"] == "missing" else f" is {repr(fault['input'])[:80]}"
        raise ModelError(f"{where}: {place}{found}: {_ended(what)}") from None


def wanted(fault: Mapping[str, Any], others: Iterable[Mapping[str, Any]] = ()) -> str:
    """What pydantic says of a fault; a wrong type in words of the file that the value stands in.

    others: faults found with it: of the same value, they say which words it may be too.
    """
    needed = _NEEDED.get(fault["type"])
    if fault["type"] == "missing" and isinstance(fault["loc"][-1], int):
        return "one more value is needed"
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] in _PATTERNS:
        return _PATTERNS[fault["ctx"]["pattern"]]
    if needed is None:
        return str(fault["msg"]).removeprefix("Value error, ")
    text = str(fault["input"])
    if fault["type"] == "bool_type" and text in ("True", "TRUE", "False", "FALSE"):
        return f"write {text.lower()}, in lower case"
    words = [
        f", or {other['ctx']['expected']}"
        for other in others
        if other["type"] == "literal_error" and other["loc"][:-1] == fault["loc"][:-1]
    ]
    bare = ", without quotes" if isinstance(fault["input"], str) else ""
    return f"{needed} is needed{bare}{''.join(words)}"


def _ended(message: str) -> str:
    return message if ";" in message else f"{message}; correct it"


def nearest(word: str, known: Iterable[str]) -> str:
    """The ending of a message, with the nearest known word if one is near: a guess, a hint."""
    near = difflib.get_close_matches(word.rpartition(".")[2], list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; correct it"
