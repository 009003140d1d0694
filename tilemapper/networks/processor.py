"""What this processor says it can do, and whether bf16 is the faster way on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def capabilities() -> dict[str, Any]:
    """What torch says the processor can do; an older torch is silent, then Linux says.

    Flags (``amx_bf16``, ``avx512_bf16``, ``bf16`` on ARM) are true where there; ``cpu_name``
    is the processor's name, if it is known.
    """
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return dict(ask())
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.is_file() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags: dict[str, Any] = dict.fromkeys(
        fields.get("flags", fields.get("Features", "")).split(), 1
    )
    return flags | {"cpu_name": fields.get("model name")}


def gains_by_bf16() -> bool:
    """Whether bf16 is computed natively here, and faster than fp32.

    Without such instructions it is emulated, and slower. Intel's AVX512-BF16 without AMX, which
    a virtual machine may hide, is slower too: on a Xeon (family 6, model 207, two cores) a sample
    city of 3072 px took 20.7 seconds of processor time in bf16 and 18.0 in fp32, medians of four
    runs in turn, with 0.11 GB more memory (2026-11-22). Training learned from 4.4 and 5.6 images
    a second, one run each.
    """
    # oneDNN's word also obeys ONEDNN_MAX_CPU_ISA, by which a processor is held to less.
    built_in = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not (built_in and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    able = capabilities()
    intel = "intel" in str(able.get("cpu_name")).lower()
    return bool(able.get("amx_bf16")) or not intel
