"""The model card: all that rendering needs to know about a model, as ``model.toml`` beside it."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tilemapper import notebook, toml
from tilemapper.errors import ModelError
from tilemapper.networks.arguments import (
    MOST_CHANNELS,
    NAME,
    SHA256,
    WEIGHTS_FILE,
    generator_arguments,
    parse,
)

CARD_NAME = "model.toml"
_CARD_LIMIT_BYTES = 1 << 20
# What `checksum` covers: all keys of format 1 by which a rendered pixel or its place can change.
_CHECKED = (
    "format", "architecture", "arguments", "head", "palette", "tile", "bands", "value_range",
    "direction", "gsd_m", "norm", "tone", "weights", "weights_sha256",
)  # fmt: skip

Level = Annotated[int, Field(ge=0, le=255, strict=True)]
Statistic = Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaletteClass(_Closed):
    """One class of a palette model: what it means and how it is drawn, RGB 0 to 255."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    colour: tuple[Level, Level, Level]


class Tone(_Closed):
    """Mean and standard deviation of each band of the training imagery, in grey levels 0..255."""

    mean: tuple[Statistic, Statistic, Statistic]
    std: tuple[Statistic, Statistic, Statistic]


class ModelCard(_Closed):
    """What ``model.toml`` says. Frozen; unknown keys are refused.

    ``arguments`` are the architecture's (checked against it). ``head`` "palette" needs a palette
    with one class an output channel. ``tile``: side of the network's input in pixels. ``gsd_m``:
    metres a pixel of the training imagery, None if unknown. ``norm``: "running" (frozen
    statistics) or "instance" (each tile its own; such a model depends on what a tile shows).
    ``weights`` and ``weights_sha256`` are None for architectures without weights. ``metrics`` may
    hold NaN where a figure is not defined. ``split_share`` and ``split_seed`` say which pairs
    were held out, so that evaluation takes the same ones; ``pairs_sha256`` and ``held_out_sha256``,
    of all names and of theirs, show whether it did, and ``trained_sha256``, of the names and some
    pixels of each set that was learned from, that it takes none of those.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME)]
    architecture: str
    arguments: dict[str, bool | int | float | str] = {}
    head: Literal["rgb", "palette"] = "rgb"
    tile: Annotated[int, Field(ge=8, le=4096)] = 256
    bands: Annotated[int, Field(ge=1, le=16)] = 3
    value_range: tuple[Literal[-1], Literal[1]] = (-1, 1)
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    gsd_m: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = None
    norm: Literal["running", "instance"] = "running"
    weights: Annotated[str, Field(pattern=WEIGHTS_FILE, max_length=120)] | None = None
    weights_sha256: Annotated[str, Field(pattern=SHA256)] | None = None
    licence: str = ""
    origin: str = ""
    recipe: str = ""
    command: str = ""
    hardware: str = ""
    date: str = ""
    train_eval_gap: float | None = None
    split_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    split_seed: Annotated[int, Field(ge=0)] | None = None
    pairs_sha256: Annotated[str, Field(pattern=SHA256)] | None = None
    held_out_sha256: Annotated[str, Field(pattern=SHA256)] | None = None
    trained_sha256: tuple[Annotated[str, Field(pattern=SHA256)], ...] = ()
    tone: Tone | None = None
    metrics: dict[str, float] = {}
    palette: Annotated[tuple[PaletteClass, ...], Field(max_length=MOST_CHANNELS)] = ()

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def channels(self) -> int:
        """Output channels of the generator: 3, or the number of classes."""
        return len(self.palette) if self.head == "palette" else 3

    @property
    def digest(self) -> str:
        """sha256 of all in the card that decides a rendered pixel, the weights' sha256 included."""
        deciding = ("architecture", "arguments", "head", "palette", "tile", "bands", "gsd_m")
        values = self.model_dump(mode="json", include={*deciding, "norm", "tone", "weights_sha256"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _repr_html_(self) -> str:
        gsd = "unknown" if self.gsd_m is None else f"{self.gsd_m:g} m a pixel"
        rows = [
            ("architecture", " ".join([self.architecture, *map(_pair, self.arguments.items())])),
            ("input", f"{self.bands} bands, tiles of {self.tile} px, {gsd}, {self.direction}"),
            ("output", f"palette of {len(self.palette)}" if self.palette else "RGB"),
            ("norm", self.norm),
            *((name, getattr(self, name)) for name in ("licence", "origin", "recipe", "date")),
            *((name, f"{value:.4g}") for name, value in self.metrics.items()),
            *((entry.name, "rgb({}, {}, {})".format(*entry.colour)) for entry in self.palette),
        ]
        return notebook.table([row for row in rows if row[1]], caption=self.name, head=False)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ModelCard:
        arguments = generator_arguments(self.architecture, self.arguments)
        if (self.head == "palette") != bool(self.palette):
            raise ValueError(f"a {self.head} head with {len(self.palette)} palette classes")
        if self.tile % arguments.multiple:
            raise ValueError(
                f"tile {self.tile}, the architecture needs a multiple of {arguments.multiple}"
            )
        # A single pixel cannot be normalised by itself.
        norm = arguments.innermost_norm
        if norm.startswith("instance") and self.tile == arguments.multiple:
            raise ValueError(
                f"tile {self.tile}, at least {2 * self.tile} is needed with norm {norm}"
            )
        if getattr(arguments, "bands", self.bands) != self.bands:
            raise ValueError(f"bands {self.bands}, the arguments say {arguments.bands}")
        if (self.weights is None) != (self.weights_sha256 is None):
            raise ValueError("weights and weights_sha256 are given together, or neither")
        return self


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder.

    Raises ModelError if it is missing, damaged or contradictory, or if its ``checksum``, which
    may be missing, is not that of what decides its pixels.
    """
    path = folder / CARD_NAME
    try:
        with path.open("rb") as file:
            data = file.read(_CARD_LIMIT_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); a model is a folder with {CARD_NAME}"
        ) from error
    if len(data) > _CARD_LIMIT_BYTES:
        raise ModelError(f"{path}: larger than {_CARD_LIMIT_BYTES} bytes; this is no model card")
    try:
        values = toml.loads(data.decode())
    except ValueError as error:
        raise ModelError(f"{path}: not readable as TOML ({error}); restore the card") from error
    checksum = values.pop("checksum", None)
    card = card_from(values, where=str(path))
    if checksum not in (None, _checksum(values)):
        raise ModelError(
            f"{path}: was changed since it was saved, its checksum differs; restore it, or take "
            "the line checksum out if the change is yours"
        )
    return card


def card_from(values: dict[str, Any], *, where: str) -> ModelCard:
    """A checked card from plain values; ``where`` begins the message of a ModelError."""
    try:
        return parse(ModelCard, values, where=where)
    except ModelError as error:
        message = str(error)
        raise ModelError(message if message.startswith(where) else f"{where}: {message}") from None


def card_text(card: ModelCard) -> str:
    """The card as TOML, with its checksum; None and empty values are left out, tables come last."""
    plain = _plain_text(card)
    return f'checksum = "{_checksum(toml.loads(plain))}"\n{plain}'


def _checksum(values: dict[str, Any]) -> str:
    """sha256 of what stands in a card, defaults not filled in: they belong to a version."""
    checked = {key: values[key] for key in _CHECKED if key in values}
    text = json.dumps(checked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_text(card: ModelCard) -> str:
    values = card.model_dump()
    lines = [
        f"{key} = {_toml(value)}"
        for key, value in values.items()
        if value not in (None, "", ()) and key not in ("arguments", "tone", "metrics", "palette")
    ]
    for key in ("arguments", "tone", "metrics"):
        if values[key]:
            lines += ["", f"[{key}]"]
            lines += [f"{_toml_key(name)} = {_toml(value)}" for name, value in values[key].items()]
    for item in values["palette"]:
        lines += ["", "[[palette]]", *(f"{name} = {_toml(value)}" for name, value in item.items())]
    return "\n".join(lines) + "\n"


def _pair(item: tuple[str, object]) -> str:
    return f"{item[0]} {item[1]}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # A JSON string is a TOML string, but for DEL and for surrogates, which ASCII output would need.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def _toml_key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").isalnum() else _toml(name)
