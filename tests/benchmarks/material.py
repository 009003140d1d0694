"""What the benchmarks work on, rasters and models made on the spot, and what they say of it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("tilemapper", "torch", "numpy", "rasterio", "distributed")


def header(*more: str) -> str:
    """Date, command, machine and versions, as the results files begin; ``more`` packages."""
    names = (*PACKAGES, *more)
    return "\n".join(
        (
            f"{datetime.date.today()}  python {' '.join(sys.argv)}",
            f"{processor()}, {len(os.sched_getaffinity(0))} cores, "
            f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {_version(name)}" for name in names),
            f"load before: {os.getloadavg()[0]:.1f} (1 min)",
        )
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from source" if name == "tilemapper" else "missing"


def processor() -> str:
    """The processor's name and those of its units that compute in bf16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if f" {unit} " in text.replace("\n", " ")]
    return " with ".join([names[0] if names else platform.machine(), *units])


def make_raster(path: Path, height: int, width: int) -> Path:
    """A tiled, DEFLATE-compressed raster of noise, written in rows of file blocks."""
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "dtype": "uint8"}
    profile |= {"height": height, "width": width, "crs": "EPSG:32618", "BIGTIFF": "IF_SAFER"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    profile |= {"compress": "deflate", "zlevel": 1, "predictor": 2}
    row = np.random.default_rng(0).integers(90, 170, (3, 512, width), dtype=np.uint8)
    grid = Affine(0.9, 0, 583000, 0, -0.9, 4507000)
    with rasterio.open(path, "w", transform=grid, **profile) as dst:
        for at in range(0, height, 512):
            shifted = np.roll(row, at * 7, axis=2)[:, : height - at]
            dst.write(shifted, window=Window(0, at, width, shifted.shape[1]))
    return path


def make_large_city(path: Path, size: int, *, part: int = 2048) -> Path:
    """A large raster in seconds: the synthetic city of ``part`` px, laid side by side."""
    import rasterio
    from rasterio.windows import Window

    small = make_city(path.with_name("part.tif"), part, part)
    with rasterio.open(small) as src:
        pixels, profile = src.read(), src.profile
    profile |= {"driver": "GTiff", "height": size, "width": size, "BIGTIFF": "IF_SAFER"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "num_threads": "all_cpus"}
    profile |= {"compress": "deflate", "zlevel": 1, "predictor": 2}
    row = np.tile(pixels, (1, 1, -(-size // part)))[:, :, :size]
    with rasterio.open(path, "w", **profile) as dst:
        for at in range(0, size, part):
            height = min(part, size - at)
            dst.write(row[:, :height], window=Window(0, at, size, height))
    return path


def make_city(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """The synthetic city of `tilemapper sample`."""
    from tilemapper.report.city import write_city

    write_city(path, height=height, width=width, seed=seed)
    return path


def make_model(folder: Path, width: int, *, sleep_s: float = 0.0) -> Path:
    """A U-Net-256 of random weights: speed does not depend on what it paints.

    With ``width`` 0 the identity, which takes ``sleep_s`` for every batch.
    """
    import torch

    from tilemapper.networks.build import build_generator
    from tilemapper.networks.model import ModelCard, save_model

    torch.manual_seed(0)
    kind = ("unet", {"width": width}) if width else ("identity", {"sleep_s": sleep_s})
    card = ModelCard(name="bench", architecture=kind[0], arguments=kind[1])
    save_model(folder, card, build_generator(*kind, 3, "rgb"), "# bench\n")
    return folder


def peak_mib() -> float:
    """Largest resident memory of this process so far; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_process(program: str, *args: object) -> dict[str, Any]:
    """A benchmark in a process of its own, so that peak memory is that of one thing.

    It must print one JSON object on its last line.
    """
    command = [sys.executable, program, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
