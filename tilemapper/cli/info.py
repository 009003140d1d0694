"""``tilemapper info``: versions, devices, raster drivers and models, for a look or a report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import Any

import click

from tilemapper.cli.options import Numbers, OrWord, debug_option, json_option

PACKAGES = ("torch", "rasterio", "numpy", "dask", "distributed", "safetensors", "pydantic")
OPTIONAL_PACKAGES = (
    "pillow", "matplotlib", "tensorboard", "boto3", "pystac", "fastapi", "uvicorn", "xarray",
    "bokeh", "onnx", "onnxruntime", "onnxscript",
)  # fmt: skip
# What reading and writing rests on; a GDAL without one of them cannot do its part.
DRIVERS = ("GTiff", "COG", "JPEG", "PNG", "JP2OpenJPEG", "VRT")


@click.command("info")
@click.argument("raster", required=False)
@click.option(
    "--doctor",
    metavar="MODEL",
    help="Measure MODEL on RASTER (a sample city if there is none) within a minute.",
)
@click.option("--overlap", type=int, help="With --doctor, as for render.")
@click.option(
    "--gsd",
    type=OrWord(float, "auto", "native"),
    default="auto",
    show_default=True,
    help="With --doctor, as for render.",
)
@click.option("--bidx", type=Numbers(int, "R,G,B", 3), help="With --doctor, as for render.")
@click.option("--device", default="auto", show_default=True, help="With --doctor.")
@json_option
@debug_option
def info(raster: str | None, doctor: str | None, as_json: bool, **options: Any) -> None:
    """Show versions, devices, GDAL drivers and the models found.

    With --doctor: is a model sound on a raster? Its figures, what they mean and what to do; exit 1
    if it should not be used like this.
    """
    if doctor is not None:
        _examine(doctor, raster, as_json, options)
        return
    if raster is not None:
        raise click.UsageError("RASTER is for --doctor MODEL; name the model, or leave it out.")
    found = {
        "versions": _versions(),
        "cpu": _cpu(),
        "cuda": _cuda(),
        "cuda_fault": _cuda_fault(),
        "gdal": _gdal(),
        "models": _models(),
    }
    click.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))


def _examine(model: str, raster: str | None, as_json: bool, options: dict[str, Any]) -> None:
    from tilemapper.api.doctor import doctor
    from tilemapper.errors import ModelError

    found = doctor(model, raster, **options)
    click.echo(json.dumps(found.to_json()) if as_json else "\n".join(found.lines()))
    if found.grade == "bad":
        raise ModelError(f"{model}: {found.verdict}; do what the lines above say")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "tilemapper": _version("tilemapper"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    return versions | {name: _version(name) for name in (*PACKAGES, *OPTIONAL_PACKAGES)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    """The processor; ``bf16`` says by what it computes so, ``auto`` what that precision is here."""
    import torch

    from tilemapper.networks.processor import capabilities, gains_by_bf16

    able = capabilities()
    kinds = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "NEON"}
    return {
        "name": able.get("cpu_name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "bf16": [name for key, name in kinds.items() if able.get(key)],
        "auto": "bf16" if gains_by_bf16() else "fp32",
        "vector": torch.backends.cpu.get_cpu_capability(),
    }


def _cuda() -> list[dict[str, Any]]:
    import torch

    devices = []
    # Devices are also counted where the driver is too old for torch, which then cannot use them.
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
                "bf16": properties.major >= 8,
            }
        )
    return devices


def _cuda_fault() -> str | None:
    """Why torch can use no CUDA device; None if it can."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return "torch is built without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return " ".join(str(error).split())
    return "CUDA finds none"


def _gdal() -> dict[str, Any]:
    import rasterio

    with rasterio.Env() as environment:
        drivers = set(environment.drivers())
    return {
        "version": rasterio.__gdal_version__,
        "proj": rasterio.__proj_version__,
        "drivers": [name for name in DRIVERS if name in drivers],
        "missing": [name for name in DRIVERS if name not in drivers],
    }


def _models() -> dict[str, Any]:
    from tilemapper.networks.model import find_models

    found, faults = find_models()
    return {
        "found": {model.folder.name: str(model.folder) for model in found},
        "damaged": [str(fault) for fault in faults],
    }


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{name} {version or '(not installed)'}" for name, version in found["versions"].items()
    ]
    cpu, gdal, models = found["cpu"], found["gdal"], found["models"]
    native = f"bf16 by {', '.join(cpu['bf16'])}" if cpu["bf16"] else "no native bf16"
    lines += [
        f"cpu: {cpu['name']}, {cpu['cores']} cores, {cpu['threads']} threads, {native}, "
        f"precision auto is {cpu['auto']}"
    ]
    lines += [
        f"{d['device']}: {d['name']}, {d['memory_bytes'] / 2**30:.0f} GiB, capability "
        f"{d['capability']}, {'bf16' if d['bf16'] else 'no bf16'}"
        for d in found["cuda"]
    ] or [f"cuda: no device ({found['cuda_fault']})"]
    lines += [f"gdal {gdal['version']}, proj {gdal['proj']}: {', '.join(gdal['drivers'])}"]
    lines += [f"gdal driver missing: {name}" for name in gdal["missing"]]
    lines += [f"model {name}: {folder}" for name, folder in models["found"].items()]
    return lines + [f"model damaged: {fault}" for fault in models["damaged"]]
