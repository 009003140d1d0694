"""How the pipeline scales over worker processes, without the GPUs: the generator only sleeps.

    python tests/benchmarks/scaling.py --workers 1 2 4 8
    python tests/benchmarks/scaling.py --ceiling

A batch takes ``--sleep`` seconds as if a GPU of one's own computed it, and its pixels come out as
they went in; everything else (reading, cutting, blending, encoding, hashing, staging, dealing out
blocks, the journal) is real, on the cores of this machine. So what is lost against n times one
worker is lost by dealing, by waiting and by cores that are busy. The clock runs from the start of
the first batch of any worker to the last receipt: starting processes is shown beside it.

``--ceiling`` takes no sleep and no worker processes: pixels a second of the pipeline alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window


def make_raster(path: Path, height: int, width: int) -> None:
    """A tiled, DEFLATE-compressed raster of noise, written in rows of file blocks."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": height, "width": width}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    profile |= {"zlevel": 1, "predictor": 2, "crs": "EPSG:32618", "BIGTIFF": "IF_SAFER"}
    row = np.random.default_rng(0).integers(90, 170, (3, 512, width), dtype=np.uint8)
    grid = Affine(0.9, 0, 583000, 0, -0.9, 4507000)
    with rasterio.open(path, "w", transform=grid, **profile) as dst:
        for at in range(0, height, 512):
            shifted = np.roll(row, at * 7, axis=2)[:, : height - at]
            dst.write(shifted, window=Window(0, at, width, shifted.shape[1]))


def make_model(folder: Path, sleep_s: float) -> Path:
    """An identity generator that takes ``sleep_s`` for every batch."""
    from tilemapper.networks.build import build_generator
    from tilemapper.networks.model import ModelCard, save_model

    arguments = {"sleep_s": sleep_s}
    card = ModelCard(name="sleeper", architecture="identity", arguments=arguments)
    save_model(folder, card, build_generator("identity", arguments, 3), "# sleeper\n")
    return folder


def measure(
    city: Path, model: Path, target: Path, workers: int, block: int, sleep_s: float
) -> dict[str, Any]:
    """Renders all blocks with so many worker processes; 0 is this process alone."""
    from tilemapper.networks.model import open_model
    from tilemapper.render.cluster import spread_blocks
    from tilemapper.render.planning import plan_render
    from tilemapper.render.render import render_blocks
    from tilemapper.render.staging import locked, open_staging

    opened = open_model(model)
    plan = plan_render(city, target, opened, block=block, device="cpu")
    first: list[float] = []

    def tick(_tiles: int) -> None:
        if not first:
            first.append(time.perf_counter())

    begun = time.perf_counter()
    with locked(target) as folder:
        staging = open_staging(folder, plan, restart=True)
        work = (plan, opened, plan.blocks, staging.blocks, tick)
        done = spread_blocks(*work, workers=workers) if workers else render_blocks(*work)
        with contextlib.closing(done) as receipts:
            for receipt in receipts:
                staging.append(receipt)
                end = time.perf_counter()
        tiles = [receipt.tiles for receipt in staging.done.values()]
        busy = sum(receipt.seconds for receipt in staging.done.values())
        staging.remove()
    batches = sum(-(-count // plan.batch_size) for count in tiles)
    return {
        # The first tick comes when the first batch is done.
        "start_s": first[0] - sleep_s - begun,
        "seconds": end - first[0] + sleep_s,
        "busy_s": busy,
        "tiles": sum(tiles),
        "batches": batches,
        "batch_size": plan.batch_size,
        "blocks": len(plan.blocks),
    }


def header() -> None:
    """Where and with what this was measured."""
    packages = ("tilemapper", "torch", "numpy", "rasterio", "distributed")
    print(f"{datetime.date.today()}  python {' '.join(sys.argv)}")
    print(
        f"{len(os.sched_getaffinity(0))} CPU cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )
    print(f"load before: {os.getloadavg()[0]:.1f} (1 min)")


def scaling(given: argparse.Namespace, folder: Path) -> None:
    """The table of `--workers`."""
    city, model = folder / "city.tif", make_model(folder / "model", given.sleep)
    make_raster(city, given.height, given.width)
    print(
        f"{given.width} x {given.height} px, blocks of {given.block} px, {given.sleep} s a batch\n"
    )
    print(
        "| workers | start-up s | render s | ideal s | sleeping share | times one worker | load |"
    )
    print("|---|---|---|---|---|---|---|")
    alone = None
    for workers in given.workers:
        # One worker is a process of its own here too, so that all rows have the same parts.
        runs = [
            measure(city, model, folder / "map.tif", workers, given.block, given.sleep)
            for _ in range(given.repeat)
        ]
        seconds = statistics.median(run["seconds"] for run in runs)
        run = runs[0]
        alone = alone or seconds * workers
        ideal = run["batches"] * given.sleep / workers
        print(
            f"| {workers} | {run['start_s']:.1f} | {seconds:.2f} | {ideal:.2f} | "
            f"{ideal / seconds:.3f} | {alone / seconds:.2f} | {os.getloadavg()[0]:.1f} |",
            flush=True,
        )
    print(f"\n{run['tiles']} tiles in {run['blocks']} blocks, batch {run['batch_size']}")


def ceiling(given: argparse.Namespace, folder: Path) -> None:
    """Pixels a second of the pipeline alone, and what that means elsewhere."""
    city, model = folder / "city.tif", make_model(folder / "model", 0.0)
    make_raster(city, given.height, given.width)
    runs = []
    for _ in range(given.repeat):
        cpu = time.process_time()
        run = measure(city, model, folder / "map.tif", 0, given.block, 0.0)
        run["cpu_s"] = time.process_time() - cpu
        runs.append(run)
    seconds = statistics.median(run["start_s"] + run["seconds"] for run in runs)
    cpu_s = statistics.median(run["cpu_s"] for run in runs)
    pixels, tiles = given.height * given.width, runs[0]["tiles"]
    print(
        f"{given.width} x {given.height} px, blocks of {given.block} px, no sleep, one process, "
        "all stages"
    )
    print(f"{seconds:.2f} s wall, {cpu_s:.2f} s of CPU, median of {given.repeat}")
    print(f"{pixels / seconds / 1e6:.1f} Mpx/s, {tiles / seconds:.0f} tiles/s here")
    print(f"{1e3 * cpu_s / tiles:.2f} ms of CPU a tile: {tiles / cpu_s:.0f} tiles/s a core,")
    print(f"so at most {16 * tiles / cpu_s:.0f} tiles/s on 16 such cores, whatever the GPUs")


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--height", type=int, default=2048)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--sleep", type=float, default=4.0, help="seconds a batch")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--ceiling", action="store_true")
    given = parser.parse_args()
    header()
    with tempfile.TemporaryDirectory() as name:
        (ceiling if given.ceiling else scaling)(given, Path(name))


if __name__ == "__main__":
    main()
