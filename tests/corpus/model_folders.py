"""Model folders whose card or weights lie, are damaged, or reach outside."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tilemapper.networks.build import build_generator
from tilemapper.networks.model import Model, ModelCard, save_model

ARGUMENTS = {"width": 1}


@dataclass(frozen=True)
class Folder:
    """A model folder to be spoilt, and what lies outside of it."""

    path: Path
    canary: Path

    @property
    def card(self) -> Path:
        return self.path / "model.toml"

    @property
    def weights(self) -> Path:
        return self.path / "generator.safetensors"

    def put(self, data: bytes) -> None:
        """Other weights, which the card vouches for."""
        self.weights.write_bytes(data)
        self.say(weights_sha256=hashlib.sha256(data).hexdigest())

    def say(self, **values: Any) -> None:
        """Another card, sound in itself."""
        text = self.card.read_text().partition("\n")[2]
        lines = [line for line in text.splitlines() if line.partition(" ")[0] not in values]
        new = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.card.write_text("\n".join([*new, *lines]) + "\n")


def sound(path: Path) -> Model:
    """A small U-Net with weights and card."""
    torch.manual_seed(0)
    card = ModelCard(name="small", architecture="unet", arguments=ARGUMENTS, gsd_m=0.5)
    return save_model(path, card, build_generator("unet", ARGUMENTS, 3), "# small\n")


Spoil = Callable[[Folder], object]


def cases() -> Iterator[tuple[str, Spoil]]:
    """A name, and what spoils a sound folder."""
    yield from _cards()
    yield from _values()
    yield from _files()
    yield from _weights()


def _text(change: Callable[[str], str | bytes]) -> Spoil:
    def spoil(folder: Folder) -> None:
        made = change(folder.card.read_text())
        folder.card.write_bytes(made if isinstance(made, bytes) else made.encode())

    return spoil


def _cards() -> Iterator[tuple[str, Spoil]]:
    for name, change in {
        "empty": lambda text: "",
        "cut in half": lambda text: text[: len(text) // 2],
        "not UTF-8": lambda text: text.encode() + b"origin = '\xff\xfe'",
        "UTF-16": lambda text: text.encode("utf-16"),
        "of 2 MiB": lambda text: text + "#" * 2**21,
        "nested 100,000 deep": lambda text: f"a = {'[' * 100_000}\n{text}",
        "nested tables": lambda text: text + "[" + ".".join(["a"] * 100_000) + "]",
        "of a key twice": lambda text: "tile = 256\n" + text,
        "of an unknown key": lambda text: "tyle = 256\n" + text,
        "of a number without end": lambda text: f"split_seed = {'9' * 5000}\n{text}",
        "with a wrong checksum": lambda text: text.replace('checksum = "', 'checksum = "0'),
        "edited": lambda text: text.replace("gsd_m = 0.5", "gsd_m = 5.0"),
        "JSON": lambda text: '{"name": "small"}',
        "of control characters": lambda text: 'name = "\x1b[2J"\n' + text,
    }.items():
        yield f"a card {name}", _text(change)


def _values() -> Iterator[tuple[str, Spoil]]:
    nan, inf = float("nan"), float("inf")
    for number, values in enumerate(
        (
            {"name": "../../escaped"},
            {"name": "a\nb"},
            {"architecture": "__import__('os')"},
            {"architecture": "resnet"},
            {"format": 2},
            {"tile": -256},
            {"tile": 10**9},
            {"tile": 100},
            {"bands": 0},
            {"bands": 10**9},
            {"bands": 4},
            {"gsd_m": -1.0},
            {"gsd_m": nan},
            {"gsd_m": inf},
            {"norm": "none"},
            {"head": "palette"},
            {"value_range": [0, 1]},
            {"weights": "../outside.safetensors"},
            {"weights": "/etc/passwd.safetensors"},
            {"weights": ".hidden.safetensors"},
            {"weights": "generator.pth"},
            {"weights": "no.safetensors"},
            {"weights": ["generator.safetensors"]},
            {"weights_sha256": "0" * 64},
            {"weights_sha256": "z" * 64},
            {"weights_sha256": ""},
        )
    ):
        said = ", ".join(f"{key} {value!r}" for key, value in values.items())
        yield f"{number}: {said}", lambda folder, values=values: folder.say(**values)
    for said in ("width = 10000000", "width = -1", "width = 1e9", "depth = 60", "depht = 8"):
        yield (
            f"arguments {said}",
            _text(lambda text, said=said: text.partition("\n")[2].replace("width = 1", said)),
        )
    palette = "".join(f'[[palette]]\nname = "{n}"\ncolour = [1, 2, 3]\n' for n in range(5000))
    yield (
        "a palette of 5000",
        _text(lambda text: 'head = "palette"\n' + text.partition("\n")[2] + palette),
    )


def _files() -> Iterator[tuple[str, Spoil]]:
    def linked(target: Callable[[Folder], str]) -> Spoil:
        def spoil(folder: Folder) -> None:
            folder.weights.unlink()
            folder.weights.symlink_to(target(folder))

        return spoil

    yield "weights missing", lambda folder: folder.weights.unlink()
    yield "weights a link to a secret", linked(lambda folder: str(folder.canary))
    yield "weights a link to a device", linked(lambda folder: "/dev/zero")
    yield "weights a link to itself", linked(lambda folder: folder.weights.name)
    yield "weights a pipe", lambda folder: (folder.weights.unlink(), os.mkfifo(folder.weights))
    yield "weights a folder", lambda folder: (folder.weights.unlink(), folder.weights.mkdir())
    yield "weights of 8 GiB", lambda folder: os.truncate(folder.weights, 8 * 2**30)

    def card_to(target: Callable[[Folder], str]) -> Spoil:
        def spoil(folder: Folder) -> None:
            folder.card.unlink()
            folder.card.symlink_to(target(folder))

        return spoil

    yield "a card that is a secret", card_to(lambda folder: str(folder.canary))
    yield "a card that is a device", card_to(lambda folder: "/dev/zero")
    yield "a card that is a link to itself", card_to(lambda folder: "model.toml")
    yield "a card that is a pipe", lambda folder: (folder.card.unlink(), os.mkfifo(folder.card))
    yield "a card that is a folder", lambda folder: (folder.card.unlink(), folder.card.mkdir())


def _weights() -> Iterator[tuple[str, Spoil]]:
    def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
        def spoil(folder: Folder) -> None:
            state = safetensors.torch.load(folder.weights.read_bytes())
            change(state)
            folder.put(safetensors.torch.save(state))

        return spoil

    first = "downs.0.conv.weight"
    for name, change in {
        "NaN": lambda state: state[first].fill_(float("nan")),
        "infinity": lambda state: state[first].fill_(float("inf")),
        "whole numbers": lambda state: state.update({first: state[first].short()}),
        "floats of 8 bits": lambda state: state.update({first: state[first].to(torch.float8_e5m2)}),
        "complex numbers": lambda state: state.update({first: state[first].to(torch.complex64)}),
        "another shape": lambda state: state.update({first: torch.zeros(1, 3, 5, 5)}),
        "one too many": lambda state: state.update({"surplus": torch.zeros(1)}),
        "one too few": lambda state: state.pop(first),
        "none": lambda state: state.clear(),
    }.items():
        yield f"weights: {name}", changed(change)

    def header(text: bytes, behind: bytes = b"", length: int | None = None) -> Spoil:
        head = struct.pack("<Q", len(text) if length is None else length)
        return lambda folder: folder.put(head + text + behind)

    tensor = '{{"{}": {{"dtype": "F16", "shape": {}, "data_offsets": {}}}}}'
    for name, spoil in {
        "empty": lambda folder: folder.put(b""),
        "seven bytes": lambda folder: folder.put(bytes(7)),
        "a header of 2^63 bytes": header(b"{}", length=2**63),
        "a header of 90 MB": header(b"{}", length=90_000_000),
        "a header that is no JSON": header(b"{'a': 1}"),
        "a header that is no text": header(b"\xff\xfe{}"),
        "a header nested deep": header(b"[" * 100_000),
        "a header of a list": header(b"[1, 2]"),
        "a tensor of 2^60 numbers": header(
            tensor.format(first, [2**30, 2**30], [0, 2**61]).encode(), bytes(64)
        ),
        "negative offsets": header(tensor.format(first, [1], [-2, 0]).encode(), bytes(64)),
        "offsets that turn back": header(tensor.format(first, [1], [2, 0]).encode(), bytes(64)),
        "a hole": header(tensor.format(first, [1], [10, 12]).encode(), bytes(64)),
        "a pickle": lambda folder: folder.put(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."),
        "a zip": lambda folder: folder.put(b"PK\x03\x04" + bytes(500)),
    }.items():
        yield f"safetensors: {name}", spoil
