"""The steps of gpu.py, each called in a process of its own."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from material import peak_mib
from stages import measured, table

TINY = {
    "augment.crop": "256", "networks.generator_arguments": "{width=4}",
    "networks.discriminator_arguments": "{width=4, n_layers=1}", "trainer.batch": "2",
    "trainer.calibration_batches": "0", "trainer.precise_bn_batches": "1",
    "trainer.evaluate_every": "0", "trainer.sample_every": "0", "trainer.evaluate_pairs": "1",
}  # fmt: skip


class Load:
    """The GPU's load in percent, sampled by nvidia-smi four times a second; empty without it."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._stop.wait(0.25):
            try:
                done = subprocess.run(query, capture_output=True, text=True, check=True)
                self.samples.append((time.perf_counter(), int(done.stdout.splitlines()[0])))
            except (OSError, ValueError, IndexError, subprocess.CalledProcessError):
                return

    def between(self, begun: float, end: float) -> list[int]:
        """The samples of the steady state."""
        return [percent for at, percent in self.samples if begun <= at <= end]

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()


def open_painter(given: argparse.Namespace, batch: int, precision: str = "auto") -> Any:
    """The model on the device, by the device's path, also where the device is a CPU."""
    from tilemapper.networks.model import open_model
    from tilemapper.render.cuda.painter import Painter
    from tilemapper.render.engine import open_engine

    engine = open_engine(
        open_model(given.model), device=given.device, precision=precision, batch_size=batch
    )
    return Painter(engine)


def train(given: argparse.Namespace) -> dict[str, Any]:
    """Trains on pairs of the synthetic city."""
    from tilemapper.report.city import write_city
    from tilemapper.training.cutting import CutOptions, cut_pairs
    from tilemapper.training.run import train as run_training

    folder, side = Path(given.folder), 512 if given.tiny else 4096
    city, truth, data = folder / "t.tif", folder / "truth.tif", folder / "pairs"
    write_city(city, truth=truth, height=side, width=side)
    cut_pairs(str(city), str(truth), data, options=CutOptions(tile=256 if given.tiny else 512))
    marks: list[tuple[float, Any]] = []
    begun = time.perf_counter()
    result = run_training(
        data, folder / "run", preset="fast", settings=TINY if given.tiny else None,
        budget_minutes=float(given.minutes), device=given.device.partition(":")[0],
        progress=lambda now: marks.append((time.perf_counter(), now)),
    )  # fmt: skip
    wall_s = time.perf_counter() - begun
    # The first tenth of the steps is warm-up.
    first, last = marks[len(marks) // 10], marks[-1]
    return {
        "steps": result.step, "steps_s": (last[1].step - first[1].step) / (last[0] - first[0]),
        "pairs_s": last[1].images_per_s, "waiting": last[1].waiting_share, "wall_s": wall_s,
        "model": str(result.model), "losses": last[1].losses,
    }  # fmt: skip


def forward(given: argparse.Namespace) -> dict[str, Any]:
    """The generator alone, bytes on the device to predictions on the device."""
    from tilemapper.render.speed import device_speed

    batch = int(given.batch)
    painter = open_painter(given, batch)
    tiles = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), dtype=np.uint8)
    # So many batches that the clock's and the launch's own time do not show.
    batches = 4 if given.device == "cpu" else max(20, 12_800 // batch)
    rate = device_speed(painter, tiles, batches)
    return {"tiles_s": rate, "graph": painter._graph is not None}


def render(given: argparse.Namespace) -> dict[str, Any]:
    """A whole render, its load and, by one process, its stages."""
    from tilemapper.networks.model import open_model
    from tilemapper.render.devices import choose_device, choose_precision
    from tilemapper.render.render import render as render_raster

    workers, target = int(given.workers[0]), Path(given.target)
    opened = open_model(given.model)
    precision = choose_precision("auto", choose_device(given.device), opened)
    options: dict[str, Any] = {"device": given.device, "precision": precision, "gsd": "native"}
    batches: list[int] = []
    options["on_plan"] = lambda plan, _tiles: batches.append(plan.batch_size)
    if given.device == "cpu" and workers == 1:
        _through_device()
    marks: list[float] = []
    with measured() as meter, Load() as load:
        cpu, begun = time.process_time(), time.perf_counter()
        result = render_raster(
            given.source, target, opened, overwrite=True, workers=workers,
            tick=lambda _tiles: marks.append(time.perf_counter()), **options,
        )  # fmt: skip
        wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "tiles": result.tiles, "seconds": wall_s, "batch": batches[0],
        "busy": load.between(marks[0], marks[-1]), "peak_mib": peak_mib(),
        "output_bytes": result.output_bytes, "sha256": digest(target),
        "table": table(meter, cpu_s, wall_s) if workers == 1 else "",
    }  # fmt: skip


def _through_device() -> None:
    """Has a rehearsal on a CPU take the device's path."""
    from tilemapper.render import blocks
    from tilemapper.render.cuda.painter import Painter

    painters: dict[int, Painter] = {}
    blocks.painter_of = lambda engine: painters.setdefault(id(engine), Painter(engine))


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as src:
        return hashlib.file_digest(src, "sha256").hexdigest()


def levels(given: argparse.Namespace) -> dict[str, Any]:
    """bf16 against fp32, twice the same, and the blend of device and host."""
    from tilemapper.render import blocks
    from tilemapper.render import render as module

    def pixels(name: str, **options: Any) -> Any:
        target = Path(given.target).with_name(f"{name}.tif")
        module.render(
            given.source, target, given.model, device=given.device, overwrite=True, **options
        )
        with rasterio.open(target) as src:
            return src.read().astype(int)

    if given.device == "cpu":
        _through_device()
    exact, fast = pixels("fp32", precision="fp32"), pixels("bf16", precision="bf16")
    again = pixels("again", precision="bf16")
    blocks.painter_of = lambda engine: None
    hosts = pixels("host", precision="bf16")
    apart = np.abs(exact - fast).max(axis=0)
    by_host = np.abs(hosts - fast).max(axis=0)
    lines = [
        f"bf16 against fp32: equal {np.mean(apart == 0):.3%}, within 1 level "
        f"{np.mean(apart <= 1):.3%}, most {apart.max()} levels",
        f"bf16 twice: {'the same' if (again == fast).all() else 'NOT the same'} pixels",
        f"blended by device and by host: within 1 level {np.mean(by_host <= 1):.3%}, "
        f"most {by_host.max()} levels",
    ]
    return {"text": "\n".join(lines)}
