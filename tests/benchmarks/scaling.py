"""How the pipeline scales over worker processes, without the GPUs: the generator only sleeps.

    python tests/benchmarks/scaling.py --workers 1 2 4 8

A batch takes ``--sleep`` seconds as if a GPU of one's own computed it, and its pixels come out as
they went in; everything else (reading, cutting, blending, encoding, hashing, staging, dealing out
blocks, the journal) is real, on the cores of this machine. So what is lost against n times one
worker is lost by dealing, by waiting and by cores that are busy. The clock runs from the start of
the first batch of any worker to the last receipt: starting processes is shown beside it.
What the pipeline carries without any sleep is measured by ceiling.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from material import header, make_model, make_raster


def measure(
    city: Path, model: Path, target: Path, workers: int, block: int, sleep_s: float
) -> dict[str, Any]:
    """Renders all blocks with so many worker processes; 0 is this process alone."""
    from tilemapper.networks.model import open_model
    from tilemapper.render.blocks import render_blocks
    from tilemapper.render.cluster import spread_blocks
    from tilemapper.render.planning import plan_render
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


def scaling(given: argparse.Namespace, folder: Path) -> None:
    """The table of `--workers`."""
    city, model = folder / "city.tif", make_model(folder / "model", 0, sleep_s=given.sleep)
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


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--height", type=int, default=2048)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--sleep", type=float, default=4.0, help="seconds a batch")
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory() as name:
        scaling(given, Path(name))


if __name__ == "__main__":
    main()
