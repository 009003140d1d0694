"""Wall time of `tilemapper render` against the pure forward time of the tiles it runs.

    python tests/benchmarks/forward.py --size 4096 --width 64
    python tests/benchmarks/forward.py --size 16384 --width 16 --memory-only

Both are measured in this one run, in processes of their own and in turn (forward, render,
forward, render, …), after a warm-up; the ratio quoted is the median over the pairs. Two pure
forward times stand in the table: *eager*, what PyTorch's own convolutions need (the folded
network, bf16 where native, channels_last, batches of 8 ready in memory, all cores): what a plain
loop or a peer pays; and *engine*, what the engine's packed network needs for the same tiles, so
that the second ratio is what reading, blending, encoding and checking cost on top. Peak memory
is the process's; *above torch* is what came after torch was loaded and had computed something.
The raster is the synthetic city; with --memory-only it is noise, which is written faster.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from stages import measured, table

EAGER_BATCH = 8  # where the throughput of PyTorch's own convolutions levels off here


def make_model(folder: Path, width: int) -> Path:
    """A U-Net-256 of random weights: speed does not depend on what it paints."""
    import torch

    from tilemapper.networks.build import build_generator
    from tilemapper.networks.model import ModelCard, save_model

    torch.manual_seed(0)
    card = ModelCard(name="bench", architecture="unet", arguments={"width": width})
    save_model(folder / "model", card, build_generator("unet", {"width": width}, 3), "# bench\n")
    return folder / "model"


def make_raster(path: Path, size: int) -> None:
    """A tiled, DEFLATE-compressed raster of smooth noise, written in rows of file blocks."""
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": size, "width": size}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    profile |= {"zlevel": 1, "predictor": 2, "crs": "EPSG:32618", "BIGTIFF": "IF_SAFER"}
    rng = np.random.default_rng(0)
    row = rng.integers(90, 170, (3, 512, size), dtype=np.uint8)
    with rasterio.open(
        path, "w", transform=Affine(0.9, 0, 583000, 0, -0.9, 4507000), **profile
    ) as dst:
        for at in range(0, size, 512):
            height = min(512, size - at)
            rolled = np.roll(row, at * 7, axis=2)[:, :height]
            dst.write(rolled, window=Window(0, at, size, height))


def peak_mib() -> float:
    """Largest resident memory of this process so far; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forward(model: Path, tiles: int, precision: str, batch: int | None) -> dict[str, float]:
    """Seconds of the generator alone for so many tiles, batches ready in memory."""
    import torch

    from tilemapper.networks.folding import fold_norms
    from tilemapper.networks.model import open_model
    from tilemapper.render.engine import open_engine

    opened = open_model(model)
    engine = open_engine(opened, device="cpu", precision=precision, batch_size=batch)
    eager = fold_norms(opened.generator()).to(engine._dtype).to(memory_format=torch.channels_last)

    def ready(count: int) -> torch.Tensor:
        pixels = torch.randint(0, 256, (count, 256, 256, 3), dtype=torch.uint8)
        return (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(engine._dtype)

    def seconds_of(run: Callable[[int], object], count: int) -> float:
        run(3)
        begun = time.perf_counter()
        run(-(-tiles // count))
        return (time.perf_counter() - begun) * tiles / (-(-tiles // count) * count)

    def in_turn(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                eager(plain)

    def in_lanes(calls: int) -> None:
        def one(_: int) -> None:
            with torch.inference_mode():
                engine._network(own)

        with ThreadPoolExecutor(engine.lanes, initializer=engine.enter_lane) as pool:
            list(pool.map(one, range(calls)))

    plain, own = ready(EAGER_BATCH), ready(engine.batch_size)
    found = {"eager_s": seconds_of(in_turn, EAGER_BATCH)}
    found["engine_s"] = seconds_of(in_lanes, engine.batch_size)
    return found


def whole(model: Path, city: Path, precision: str, batch: int | None) -> dict[str, float]:
    """Seconds and peak memory of a whole render; imports and the model's load not counted."""
    from tilemapper.memory import keep_freed_memory

    keep_freed_memory()  # as the command does
    import torch

    torch.nn.functional.conv2d(torch.rand(1, 3, 64, 64), torch.rand(8, 3, 3, 3))
    base = peak_mib()
    from tilemapper.networks.model import open_model
    from tilemapper.render.engine import open_engine
    from tilemapper.render.render import render

    opened = open_model(model)
    begun = time.perf_counter()
    engine = open_engine(opened, device="cpu", precision=precision, batch_size=batch)
    load_s = time.perf_counter() - begun
    engine.predict(np.zeros((engine.batch_size, 256, 256, 3), np.uint8))
    with tempfile.TemporaryDirectory(dir=city.parent) as folder:
        target = Path(folder) / "map.tif"
        begun, cpu = time.perf_counter(), time.process_time()
        options = {"precision": precision, "batch_size": engine.batch_size, "device": "cpu"}
        result = render(city, target, opened, engine=engine, **options)
        seconds = time.perf_counter() - begun
        return {
            "seconds": seconds,
            "cpu_s": time.process_time() - cpu,
            "tiles": result.tiles,
            "peak_mib": peak_mib(),
            "base_mib": base,
            "load_s": load_s,
            "output_bytes": result.output_bytes,
        }


def in_process(*args: str) -> dict[str, Any]:
    """This program again, in a process of its own: peak memory is then that of one thing."""
    done = subprocess.run(
        [sys.executable, __file__, *args], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, help="tiles a call of the engine")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--memory-only", action="store_true", help="one render, no forward")
    parser.add_argument("--one", choices=["forward", "render", "stages"], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--city", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tiles", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one == "forward":
        print(json.dumps(forward(given.model, given.tiles, given.precision, given.batch)))
        return
    if given.one == "stages":
        with measured() as meter:
            run = whole(given.model, given.city, given.precision, given.batch)
        print(json.dumps({"table": table(meter, run["cpu_s"], run["seconds"])}))
        return
    if given.one == "render":
        print(json.dumps(whole(given.model, given.city, given.precision, given.batch)))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(given, Path(name))


def measure(given: argparse.Namespace, folder: Path) -> None:
    """The pairs of measurements, and the table."""
    import torch

    model, city = make_model(folder, given.width), folder / "city.tif"
    if given.memory_only:
        make_raster(city, given.size)
    else:
        from tilemapper.report.city import write_city

        write_city(city, height=given.size, width=given.size)
    common = ["--model", str(model), "--precision", given.precision]
    common += [] if given.batch is None else ["--batch", str(given.batch)]
    print(f"{datetime.date.today()}  {' '.join(sys.argv)}")
    python = platform.python_version()
    print(f"{torch.get_num_threads()} threads, Python {python}, torch {torch.__version__}")
    if given.memory_only:
        run = in_process("--one", "render", "--city", str(city), *common)
        rate = run["tiles"] / run["seconds"]
        print(f"width {given.width}, {given.size} px: {run['tiles']:.0f} tiles, {rate:.1f} tiles/s")
        print(
            f"peak {run['peak_mib']:.0f} MiB, {run['peak_mib'] - run['base_mib']:.0f} above torch"
        )
        return
    from tilemapper.raster.lattice import Lattice

    tiles = Lattice(given.size, given.size).tile_count
    rows = []
    for _ in range(given.pairs):
        bare = in_process("--one", "forward", "--tiles", str(tiles), *common)
        run = in_process("--one", "render", "--city", str(city), *common)
        run |= {kind: run["seconds"] / bare[f"{kind}_s"] for kind in ("eager", "engine")}
        rows.append(run)
        print(
            f"  forward, eager {bare['eager_s']:6.2f} s, engine {bare['engine_s']:6.2f} s   render "
            f"{run['seconds']:6.2f} s   ratio {run['eager']:.3f}, {run['engine']:.3f}   peak "
            f"{run['peak_mib']:.0f} MiB   model loaded in {run['load_s']:.2f} s"
        )
    eager, engine = (statistics.median(run[kind] for run in rows) for kind in ("eager", "engine"))
    rate = statistics.median(run["tiles"] / run["seconds"] for run in rows)
    above = statistics.median(run["peak_mib"] - run["base_mib"] for run in rows)
    run_now = f"{rows[0]['tiles']:.0f} run"
    print(f"U-Net-256 width {given.width}, {given.size} px, {tiles} tiles ({run_now})")
    print(f"median ratio: {eager:.3f} to eager, {engine:.3f} to the engine's own forward")
    print(f"{rate:.1f} tiles/s, peak {above:.0f} MiB above torch")
    run = in_process("--one", "stages", "--city", str(city), *common)
    print(f"\nOne render more, its stages measured; they run beside each other:\n\n{run['table']}")


if __name__ == "__main__":
    main()
