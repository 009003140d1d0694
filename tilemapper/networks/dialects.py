"""How foreign checkpoints name the layers of the networks that we also have.

A `Layout` says which of our layers each foreign one is; `importers` carries the weights over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from torch import Tensor

from tilemapper.errors import ModelError

Dialect = Literal["junyanz", "aladdinpersson", "aladdinpersson-reflect"]

# A key that only this dialect's generators have: U-Net, then ResNet, then the flat U-Net.
_MARKS = {
    "model.model.0.weight": "junyanz",
    "model.10.conv_block.1.weight": "junyanz",
    "initial_down.0.weight": "aladdinpersson",
}


@dataclass(frozen=True)
class Layer:
    """One of our layers and where its convolution and norm stand in the checkpoint.

    ``swap``: the input channels are [skip, up] there, and [up, skip] here.
    ``bare``: without a norm, and still with a bias only where the others' norms are instance norms.
    """

    ours: str
    conv: str
    norm: str | None = None
    swap: bool = False
    bare: bool = False

    def biased(self, norm: str) -> bool:
        """Whether its convolution has a bias in every checkpoint whose norms are of this kind."""
        if norm == "instance":
            return True
        return self.norm is None and not self.bare


@dataclass(frozen=True)
class Layout:
    """A foreign network in our terms.

    ``bare_norms``: its norms may lack gains, or be left out.
    """

    architecture: Literal["unet", "resnet"]
    layers: list[Layer]
    arguments: dict[str, Any] = field(default_factory=dict)
    tile: int = 256
    bare_norms: bool = True


def layout_of(state: Mapping[str, Tensor], dialect: Dialect, *, name: str) -> Layout:
    """The layout of a state dict in that dialect. Raises ModelError if it is of another kind."""
    found = next((dialect for key, dialect in _MARKS.items() if key in state), None)
    if found is None:
        first = next(iter(state), "nothing")
        raise ModelError(
            f"{name}: no generator of a known dialect (first key {first}), one of "
            f"{', '.join(get_args(Dialect))} is needed; is it the generator's checkpoint?"
        )
    if not dialect.startswith(found):
        raise ModelError(
            f"{name}: its keys are of dialect {found}, not {dialect}; use --dialect {found}"
        )
    if found == "aladdinpersson":
        return _aladdinpersson(state, reflect=dialect == "aladdinpersson-reflect")
    if "model.model.0.weight" in state:
        return _junyanz_unet(state)
    return _junyanz_resnet(state)


def _junyanz_unet(state: Mapping[str, Tensor]) -> Layout:
    """Nested skip blocks; the depth is counted. The skip passes through the up path's ReLU."""
    paths = ["model.model."]
    while f"{paths[-1]}{1 if len(paths) == 1 else 3}.model.1.weight" in state:
        paths.append(f"{paths[-1]}{1 if len(paths) == 1 else 3}.model.")
    last = len(paths) - 1
    layers = [Layer("downs.0", f"{paths[0]}0", bare=True)]
    layers += [Layer(f"downs.{k}", f"{paths[k]}1", f"{paths[k]}2") for k in range(1, last)]
    layers += [Layer(f"downs.{last}", f"{paths[last]}1", bare=True)]
    layers += [Layer("ups.0", f"{paths[last]}3", f"{paths[last]}4")]
    layers += [
        Layer(f"ups.{last - k}", f"{paths[k]}5", f"{paths[k]}6", swap=True)
        for k in range(last - 1, 0, -1)
    ]
    layers += [Layer("head", f"{paths[0]}3", swap=True)]
    weight = state[f"{paths[0]}0.weight"]
    arguments = {"depth": len(paths), "skip": "relu", "dropout_levels": "middle"}
    return _unet(layers, arguments, weight)


def _aladdinpersson(state: Mapping[str, Tensor], *, reflect: bool) -> Layout:
    """Flat names, depth 8, reflected padding; copies reflect in the bottleneck too."""
    layers = [Layer("downs.0", "initial_down.0")]
    layers += [Layer(f"downs.{k}", f"down{k}.conv.0", f"down{k}.conv.1") for k in range(1, 7)]
    layers += [Layer("downs.7", "bottleneck.0")]
    layers += [Layer(f"ups.{k}", f"up{k + 1}.conv.0", f"up{k + 1}.conv.1") for k in range(7)]
    layers += [Layer("head", "final_up.0")]
    arguments = {
        "depth": 8,
        "skip": "leaky",
        "padding": "reflect",
        "bottleneck_padding": "reflect" if reflect else "zeros",
    }
    return replace(_unet(layers, arguments, state["initial_down.0.weight"]), bare_norms=False)


def _unet(layers: list[Layer], arguments: dict[str, Any], first: Tensor) -> Layout:
    return Layout("unet", layers, arguments | _size(first), tile=max(256, 2 ** arguments["depth"]))


def _size(first: Tensor | None) -> dict[str, int]:
    """Width and bands by the first convolution; wrong ones are found when weights go in."""
    if first is None or first.ndim != 4:
        return {}
    return {"width": first.shape[0], "bands": first.shape[1]}


def _junyanz_resnet(state: Mapping[str, Tensor]) -> Layout:
    """CycleGAN's generator: one flat sequence, whose blocks are counted."""
    blocks = 0
    while f"model.{10 + blocks}.conv_block.1.weight" in state:
        blocks += 1
    # Dropout inside the blocks moves their second convolution by one place.
    second = 6 if "model.10.conv_block.6.weight" in state and _is_conv(state, 6) else 5
    layers = [Layer("stem", "model.1", "model.2")]
    layers += [Layer(f"downs.{k}", f"model.{4 + 3 * k}", f"model.{5 + 3 * k}") for k in range(2)]
    for block in range(blocks):
        path = f"model.{10 + block}.conv_block."
        layers += [Layer(f"blocks.{block}.first", f"{path}1", f"{path}2")]
        layers += [Layer(f"blocks.{block}.second", f"{path}{second}", f"{path}{second + 1}")]
    after = 10 + blocks
    layers += [
        Layer(f"ups.{k}", f"model.{after + 3 * k}", f"model.{after + 3 * k + 1}") for k in range(2)
    ]
    layers += [Layer("head", f"model.{after + 7}")]
    return Layout("resnet", layers, {"blocks": blocks} | _size(state.get("model.1.weight")))


def _is_conv(state: Mapping[str, Tensor], place: int) -> bool:
    return state[f"model.10.conv_block.{place}.weight"].ndim == 4
