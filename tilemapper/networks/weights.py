"""Weights on disk: safetensors bytes out of a network and back, checked before they are used."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tilemapper.errors import ModelError
from tilemapper.networks.build import build_generator
from tilemapper.networks.card import ModelCard

_HEADER_LIMIT_BYTES = 4 << 20
# Floats of 8 bits and less, which torch cannot even test for NaN, are none of ours.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Counts training batches; nothing at inference reads it.
_COUNTER = "num_batches_tracked"


def pack_weights(network: nn.Module, *, name: str) -> bytes:
    """The network's state as safetensors: float16, but float32 for biases and norm statistics.

    A running variance can lie outside the range of float16, and these tensors are small. Raises
    ModelError, beginning with ``name``, for values that are not finite as they will be stored.
    """
    stored = {}
    for key, tensor in network.state_dict().items():
        if key.endswith(_COUNTER):
            continue
        kind = torch.float16 if tensor.ndim > 1 else torch.float32
        stored[key] = tensor.detach().to("cpu", kind).contiguous()
        if not torch.isfinite(stored[key]).all():
            raise ModelError(
                f"{name}: {key} holds values that are not finite as {kind}; "
                "export an earlier checkpoint"
            )
    return safetensors.torch.save(stored)


def read_weights(path: Path, card: ModelCard) -> bytes:
    """The weights file's bytes, with the card's sha256. Raises ModelError otherwise.

    No more is read than the card's architecture can need, whatever the file's size.
    """
    numbers = sum(tensor.numel() for tensor in _on_meta(card).state_dict().values())
    limit = 4 * numbers + _HEADER_LIMIT_BYTES
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: not a regular file; restore the model's weights")
        if status.st_size > limit:
            raise ModelError(
                f"{path}: {status.st_size} bytes, the card's {card.architecture} has at most "
                f"{limit}; card and weights do not belong together, restore the model"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); restore the model's weights"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != card.weights_sha256:
        raise ModelError(
            f"{path}: sha256 is {found[:16]}…, the card says {str(card.weights_sha256)[:16]}…; "
            "the file is damaged or of another model, restore it"
        )
    return data


def generator_from(card: ModelCard, data: bytes, *, name: str) -> nn.Module:
    """The card's generator with these weights: float32, eval mode, norms unfolded.

    Shapes are compared with the architecture before anything of its size is allocated. Raises
    ModelError, beginning with ``name``, when names, shapes or types differ or a value is not
    finite.
    """
    state = unpack_weights(data, name=name)
    return with_weights(_on_meta(card), state, name=name)


def with_weights(generator: nn.Module, state: dict[str, Tensor], *, name: str) -> nn.Module:
    """A generator built on the meta device, now with this state in float32, in eval mode.

    Raises ModelError, beginning with ``name``, unless the state fits and is finite.
    """
    expected = generator.state_dict()
    counters = {key for key in expected if key.endswith(_COUNTER)}
    check_state(state, {k: t for k, t in expected.items() if k not in counters}, name=name)
    state = {key: tensor.to(torch.float32) for key, tensor in state.items()}
    state |= {key: torch.zeros((), dtype=torch.long) for key in counters}
    generator.load_state_dict(state, assign=True)
    return generator.eval()


def unpack_weights(data: bytes, *, name: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file; ModelError if the bytes are none."""
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: not readable as safetensors ({error}); restore it") from error


def check_state(state: dict[str, Tensor], expected: dict[str, Tensor], *, name: str) -> None:
    """Raises ModelError unless names and shapes agree and all values are finite floats."""
    missing = [key for key in expected if key not in state]
    surplus = [key for key in state if key not in expected]
    if missing or surplus:
        what = [f"misses {missing[0]}"] if missing else []
        what += [f"has {surplus[0]}"] if surplus else []
        raise ModelError(
            f"{name}: {' and '.join(what)} against the architecture "
            f"({len(missing)} missing, {len(surplus)} too many); correct the arguments"
        )
    for key, wanted in expected.items():
        tensor = state[key]
        if tensor.shape != wanted.shape:
            raise ModelError(
                f"{name}: {key} is {tuple(tensor.shape)}, the architecture needs "
                f"{tuple(wanted.shape)}; correct the arguments"
            )
        if tensor.dtype not in _FLOATS or not torch.isfinite(tensor).all():
            raise ModelError(
                f"{name}: {key} holds values that are not finite numbers; restore the weights"
            )


def _on_meta(card: ModelCard) -> nn.Module:
    """The card's generator as names and shapes only: nothing of its size is allocated."""
    with torch.device("meta"):
        return build_generator(card.architecture, card.arguments, card.channels, card.head)
