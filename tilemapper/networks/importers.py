"""Foreign checkpoints into our networks: read without running code, carried over exactly."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tilemapper.errors import ModelError, TargetError
from tilemapper.networks.build import build_generator
from tilemapper.networks.card import card_from
from tilemapper.networks.dialects import Dialect, Layer, Layout, layout_of
from tilemapper.networks.model import Model, save_model
from tilemapper.networks.renderable import BANDS, check_bands
from tilemapper.networks.weights import with_weights

NormStats = Literal["running", "instance"]
# What data-parallel training and torch.compile put before every key.
_WRAPPERS = ("module.", "_orig_mod.")


def import_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    dialect: Dialect,
    direction: Literal["AtoB", "BtoA"],
    norm_stats: NormStats,
    gsd_m: float | None,
    licence: str = "",
) -> Model:
    """Writes a foreign checkpoint's generator as a model folder, named after the folder.

    ``norm_stats`` "instance" keeps normalising each tile by itself, as junyanz tests by default.
    Raises ModelError for a checkpoint that is damaged or of another kind, TargetError if the
    folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TargetError(f"{folder}: exists already; choose a new folder")
    layout, generator = read_checkpoint(checkpoint, dialect=dialect, norm_stats=norm_stats)
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    values = {
        "name": folder.resolve().name,
        "architecture": layout.architecture,
        "arguments": layout.arguments,
        "tile": layout.tile,
        "bands": layout.arguments["bands"],
        "direction": direction,
        "gsd_m": gsd_m,
        "norm": "running" if layout.arguments["norm"] == "none" else norm_stats,
        "licence": licence,
        "origin": f"imported from {checkpoint.name} ({dialect}), sha256 {digest}",
    }
    card = card_from(values, where=str(folder))
    readme = (
        f"# {card.name}\n\nA generator imported from `{checkpoint.name}` (dialect {dialect}, "
        f"sha256 {digest}).\nIts training data, terms and figures are those of its authors; "
        "none were measured here.\n"
    )
    return save_model(folder, card, generator, readme, replace=False)


def read_checkpoint(
    checkpoint: Path, *, dialect: Dialect, norm_stats: NormStats
) -> tuple[Layout, nn.Module]:
    """A foreign generator in our terms: its layout, and it in float32 and eval mode.

    Raises ModelError for a checkpoint that is damaged, holds code, or is of another kind.
    """
    name = str(checkpoint)
    state = read_state(checkpoint)
    layout = layout_of(state, dialect, name=name)
    check_bands(layout.arguments.get("bands", BANDS), name=name)
    norm = _norm_of(state, layout, norm_stats, name=name)
    layout.arguments["norm"] = norm
    try:
        with torch.device("meta"):
            generator = build_generator(layout.architecture, layout.arguments, 3, "rgb")
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    carried = _carry(dict(state), layout, generator.state_dict(), name=name)
    return layout, with_weights(generator, carried, name=name)


def read_state(checkpoint: Path) -> dict[str, Tensor]:
    """The state dict of a ``.pth`` or ``.pth.tar``, no code run. Raises ModelError otherwise."""
    _check_archive(checkpoint)
    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{checkpoint}: not found; name a checkpoint file") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{checkpoint}: holds more than weights, or is damaged; it is not loaded, since it "
            "could run code: save its state_dict alone"
        ) from error
    # torch reports damage by almost any class: torn zip, missing record, absurd size, bad index.
    except Exception as error:
        raise ModelError(
            f"{checkpoint}: not readable as a torch checkpoint ({type(error).__name__}); "
            "fetch it again"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    tensors = isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )
    if not tensors or not state:
        raise ModelError(
            f"{checkpoint}: a {type(loaded).__name__} without a state dict, a generator's "
            "weights are needed; save its state_dict"
        )
    _check_tensors(state, checkpoint)
    return _unwrapped(state)


def _check_archive(checkpoint: Path) -> None:
    """Compares an archive's checksums, which torch does not, and refuses packed members.

    Older checkpoints, plain pickles, carry no checksum: what is damaged in them may go unseen.
    """
    refusal = f"{checkpoint}: {{}}; fetch it again"
    try:
        if checkpoint.exists() and not checkpoint.is_file():
            raise ModelError(f"{checkpoint}: not a regular file; name a checkpoint file")
        with checkpoint.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return
        with zipfile.ZipFile(checkpoint) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ModelError(refusal.format("its members are packed, torch never does that"))
            damaged = archive.testzip()
    except FileNotFoundError:
        return  # torch.load says so
    except ModelError:
        raise
    # zipfile too reports damage by many classes: bad header, text, seek, recursion.
    except Exception as error:
        raise ModelError(refusal.format(f"a damaged archive ({error})")) from error
    if damaged is not None:
        raise ModelError(refusal.format(f"damaged, the checksum of {damaged} differs"))


def _check_tensors(state: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Refuses tensors that claim more numbers than the file holds: they cost nothing to send."""
    plain = all(t.layout == torch.strided and t.device.type == "cpu" for t in state.values())
    claimed = sum(t.numel() * t.element_size() for t in state.values()) if plain else 0
    if not plain or claimed > 2 * checkpoint.stat().st_size:
        raise ModelError(
            f"{checkpoint}: its tensors claim {claimed} bytes or are sparse, quantised or empty "
            "shells; plain tensors are needed, fetch it again"
        )


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    at = 0
    # A loop, not a recursion, since a hostile key may have any number of wrappers.
    while found := next((w for w in _WRAPPERS if all(key.startswith(w, at) for key in state)), ""):
        at += len(found)
    return {key[at:]: tensor for key, tensor in state.items()}


def _norm_of(state: Mapping[str, Any], layout: Layout, norm_stats: NormStats, *, name: str) -> str:
    """Our norm for the checkpoint's: BatchNorm has gains and running statistics, others not.

    junyanz's generators have biases with instance norms only: without gains and biases there is
    no norm at all. Gains or biases that only some layers have are missed when they are carried.
    """
    layers = [layer for layer in layout.layers if layer.norm]
    affine = not layout.bare_norms or any(f"{layer.norm}.weight" in state for layer in layers)
    if not affine and not any(f"{layer.conv}.bias" in state for layer in layers):
        return "none"
    if norm_stats == "instance":
        return "instance_affine" if affine else "instance"
    if not affine or not any(f"{layer.norm}.running_mean" in state for layer in layers):
        raise ModelError(
            f"{name}: has instance norms and no running statistics; use --norm-stats instance"
        )
    return "batch"


def _carry(
    state: dict[str, Tensor], layout: Layout, wanted: dict[str, Tensor], *, name: str
) -> dict[str, Tensor]:
    """Our state from the foreign one. Raises ModelError for keys that are missing or left over."""
    carried: dict[str, Tensor] = {}
    try:
        for layer in layout.layers:
            carried |= _carry_layer(state, layer, wanted, layout.arguments["norm"])
    except RuntimeError as error:
        raise ModelError(f"{name}: shapes do not fit together ({error}); fetch it again") from error
    except KeyError as error:
        raise ModelError(
            f"{name}: misses {error.args[0]}; is it the whole generator of this dialect?"
        ) from None
    if state:
        raise ModelError(
            f"{name}: {next(iter(state))} has no place in a {layout.architecture} "
            f"({len(state)} too many); this variant is not known"
        )
    return carried


def _carry_layer(
    state: dict[str, Tensor], layer: Layer, wanted: dict[str, Tensor], norm: str
) -> dict[str, Tensor]:
    """Takes one layer's tensors out of ``state``."""
    weight = state.pop(f"{layer.conv}.weight")
    if layer.swap:
        weight = torch.cat(weight.chunk(2)[::-1])
    bias = state.pop(f"{layer.conv}.bias", None)
    if bias is None and layer.biased(norm):
        raise KeyError(f"{layer.conv}.bias")
    carried = {f"{layer.ours}.conv.weight": weight}
    place = f"{layer.ours}.conv.bias"
    if place in wanted:
        carried[place] = torch.zeros(wanted[place].shape) if bias is None else bias
        bias = None
    if layer.norm is None:
        return carried
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        ours = f"{layer.ours}.norm.{part}"
        if ours in wanted and part != "num_batches_tracked":
            carried[ours] = state[f"{layer.norm}.{part}"]
            if part == "running_mean" and bias is not None:
                # A norm takes out what the convolution before it adds; an instance norm too.
                carried[ours] = carried[ours] - bias
        state.pop(f"{layer.norm}.{part}", None)
    return carried
