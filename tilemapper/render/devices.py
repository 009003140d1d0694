"""Which device, precision and batch size ``auto`` stands for."""

from __future__ import annotations

import torch

from tilemapper.errors import DeviceError, OptionError
from tilemapper.networks.model import Model

# With packed weights a small batch costs nothing, and its activations stay in the cache.
CPU_BATCH = 4
CUDA_BATCH = 64
PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(wanted: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` to a device that is there.

    Raises:
        OptionError: no such kind of device.
        DeviceError: CUDA was asked for and is not there.
    """
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdigit())):
        raise OptionError(f"device {wanted!r}: unknown, auto, cpu, cuda or cuda:N is needed")
    if kind == "cpu":
        return "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise DeviceError(
            f"device {wanted}: {count} CUDA device(s) found; use --device cpu, or see "
            "`tilemapper info`"
        )
    return f"cuda:{number or 0}"


def choose_precision(wanted: str, device: str, model: Model) -> str:
    """``auto`` is bf16 where the device computes in it natively, else fp32."""
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
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def default_batch(device: str) -> int:
    """Tiles a batch when the user names none."""
    return CPU_BATCH if device == "cpu" else CUDA_BATCH
