"""Which device, precision and batch size ``auto`` stands for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tilemapper.errors import DeviceError, OptionError, device_fault
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import Model
from tilemapper.networks.processor import gains_by_bf16

# With packed weights a small batch costs nothing, and its activations stay in the cache.
CPU_BATCH = 4
CUDA_BATCH = 64
CUDA_MOST = 128  # beyond, a batch takes so long that its block's end waits for it
SHARE = (
    0.25  # of a GPU's free memory for one batch: others may share the GPU, libraries take theirs
)
PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(wanted: str) -> str:
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or the first of ``cuda:N,M``: a device that is there.

    Raises:
        OptionError: no such kind of device.
        DeviceError: CUDA was asked for and is not there.
    """
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, _ = wanted.partition(":")
    if wanted == "cpu":
        return "cpu"
    numbers = device_numbers(wanted)
    if kind != "cuda" or numbers is None:
        raise OptionError(
            f"device {wanted!r}: unknown, auto, cpu, cuda, cuda:N or a list cuda:N,M is needed"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if max(numbers, default=0) >= count:
        raise DeviceError(
            f"device {wanted}: {count} CUDA device(s) found; use --device cpu, or see "
            "`tilemapper info`"
        )
    return f"cuda:{numbers[0] if numbers else 0}"


def device_numbers(wanted: str) -> tuple[int, ...] | None:
    """The numbers of ``cuda:0,1``; none for a kind alone, None if they are not, or repeated."""
    _, colon, rest = wanted.partition(":")
    if not colon:
        return ()
    parts = rest.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        return None
    return tuple(int(part) for part in parts)


def choose_precision(wanted: str, device: str, model: Model) -> str:
    """``auto`` is bf16 where the device, or all of a list, compute faster in it, else fp32."""
    if wanted not in PRECISIONS:
        raise OptionError(
            f"precision {wanted!r}: unknown, one of {', '.join(PRECISIONS)} is needed"
        )
    if wanted != "auto":
        return wanted
    # Stand-ins without weights are exact in fp32 and gain nothing from bf16.
    if model.card.architecture in ("identity", "constant"):
        return "fp32"
    if device.startswith("cuda"):
        able = [torch.cuda.get_device_capability(n) for n in device_numbers(device) or (0,)]
        return "bf16" if min(able) >= (8, 0) else "fp32"
    return "bf16" if gains_by_bf16() else "fp32"


def settle(device: str) -> None:
    """Makes a GPU's libraries give the same bits in every process, and fp32 that is fp32."""
    if not device.startswith("cuda"):
        return
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    with warnings.catch_warnings():
        # Some versions of torch warn of this name. The new one is not to be mixed with it, and
        # torch.compile still reads this.
        warnings.filterwarnings("ignore", "Please use the new API settings")
        torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def naming(device: str) -> Iterator[None]:
    """Inside, what libraries tell of a GPU that fails is a DeviceError, which names it."""
    try:
        yield
    except RuntimeError as error:
        fault = device_fault(error, device)
        if fault is None:
            raise
        raise fault from error


def is_broken(device: str | torch.device = "cuda") -> bool:
    """Whether a GPU has failed under this process: then no call to it succeeds here any more."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def is_gone(device: str) -> bool:
    """Whether this process cannot begin on a GPU that was there when its work was planned.

    It has fallen off the bus, or its driver has given it up. It may come back with a restart.
    """
    try:
        torch.cuda.mem_get_info(choose_device(device))
    except (DeviceError, RuntimeError):
        return True
    return False


def has_begun(device: str) -> bool:
    """Whether this process has had memory of a GPU: what fails in it may work in the next one."""
    started = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    return started and torch.cuda.max_memory_reserved(device) > 0


def default_batch(device: str) -> int:
    """Tiles a batch when the user names none."""
    return CPU_BATCH if device == "cpu" else CUDA_BATCH


def auto_batch(device: str, model: Model, precision: str) -> int:
    """Tiles a batch for this model: on a GPU the power of two that its free memory has room for.

    It goes into the plan, since a GPU's libraries choose their algorithms by the batch's shape.
    """
    if not device.startswith("cuda"):
        return default_batch(device)
    free, _ = torch.cuda.mem_get_info(device)
    # What an earlier render in this process left with torch is free for this one.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    room = int(SHARE * free) // tile_bytes(model, precision)
    return 1 << (min(max(room, 1), CUDA_MOST).bit_length() - 1)


def tile_bytes(model: Model, precision: str) -> int:
    """Memory that one tile takes on its way through a generator, at most: all that layers give."""
    item = 2 if precision == "bf16" else 4
    elements: int = 0

    def count(_module: nn.Module, _given: Any, output: Any) -> None:
        nonlocal elements
        elements += output.numel() if isinstance(output, torch.Tensor) else 0

    card = model.card
    with torch.device("meta"):  # shapes alone: the weights may be elsewhere
        generator = build_generator(card.architecture, card.arguments, card.channels, card.head)
    for module in generator.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    tile = card.tile
    with torch.inference_mode():
        output = generator.eval()(torch.empty((1, 3, tile, tile), device="meta"))
    # Quantising holds the output in fp32 twice, and once in whole eighths of a level.
    return int(item * (elements + 3 * tile**2) + 10 * output.numel())
