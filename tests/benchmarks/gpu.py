"""What a CUDA machine gets out of `tilemapper render`: one command, one table.

    python tests/benchmarks/gpu.py --size 20000 --model maps

Renders a synthetic city on the GPU, with the reading and writing of the raster included, and
samples the GPU's load meanwhile; renders a small one in bf16 and fp32 and compares them. With
--device cpu the same program rehearses on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np


class Load:
    """The GPU's load in percent, sampled by nvidia-smi every half second; empty without it."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._stop.wait(0.5):
            try:
                done = subprocess.run(query, capture_output=True, text=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                return
            self.samples.append(int(done.stdout.splitlines()[0]))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()


def differences(folder: Path, city: Path, model: str, device: str) -> str:
    """bf16 against fp32 on a small city: what share of pixels is how many levels apart."""
    import rasterio

    from tilemapper.render.render import render

    pixels = {}
    for precision in ("fp32", "bf16"):
        target = folder / f"{precision}.tif"
        render(city, target, model, device=device, precision=precision)
        with rasterio.open(target) as src:
            pixels[precision] = src.read().astype(int)
    apart = np.abs(pixels["fp32"] - pixels["bf16"]).max(axis=0)
    return f"equal {np.mean(apart == 0):.2%}, within 1 level {np.mean(apart <= 1):.2%}"


def main() -> None:
    """Renders, samples, compares, prints."""
    import torch

    from tilemapper.render.render import render
    from tilemapper.report.city import write_city

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--small", type=int, default=2048)
    parser.add_argument("--model", default="maps")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--folder", type=Path, help="where to work, on a fast disk")
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else platform.machine()
    print(f"{datetime.date.today()}  {' '.join(sys.argv)}")
    print(f"{name}, torch {torch.__version__}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = Path(scratch)
        begun = time.perf_counter()
        write_city(folder / "city.tif", height=given.size, width=given.size)
        print(f"city of {given.size} px written in {time.perf_counter() - begun:.0f} s")
        for batch in given.batch:
            with Load() as load:
                result = render(
                    folder / "city.tif",
                    folder / f"map-{batch}.tif",
                    given.model,
                    device=given.device,
                    precision=given.precision,
                    batch_size=batch,
                )
            busy = statistics.median(load.samples) if load.samples else float("nan")
            print(
                f"batch {batch:4d}  {result.tiles} tiles  {result.seconds:8.1f} s  "
                f"{result.tiles / result.seconds:9.1f} tiles/s  GPU busy {busy:.0f} %"
            )
        write_city(folder / "small.tif", height=given.small, width=given.small, seed=1)
        print(differences(folder, folder / "small.tif", given.model, given.device))


if __name__ == "__main__":
    main()
