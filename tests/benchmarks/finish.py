"""How fast finished blocks become the raster: joining, reading back, syncing, renaming.

    python tests/benchmarks/finish.py --size 8192

Noise, the synthetic city and its map are rendered with the identity; then `finish` alone is run
again and again on the staged blocks. Encoded bytes are those of the file, raw ones those of its
pixels with all overviews. Wall seconds are the best of all runs, since in the others the machine
did something else too; CPU seconds are the process's own, all threads together.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ceiling import make_source
from material import header, make_model

KINDS = ("noise", "city", "map")


def times_of(finish: Any, repeat: int) -> tuple[float, float, float]:
    """Best wall seconds, median CPU seconds, and median wall seconds within fsync."""
    real, waited = os.fsync, [0.0]

    def fsync(descriptor: int) -> None:
        begun = time.perf_counter()
        real(descriptor)
        waited[0] += time.perf_counter() - begun

    walls, cpus, syncs = [], [], []
    os.fsync = fsync  # type: ignore[assignment]
    try:
        for _ in range(repeat):
            os.sync()  # what others wrote is not ours to wait for
            waited[0], wall, cpu = 0.0, time.perf_counter(), time.process_time()
            finish()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            syncs.append(waited[0])
    finally:
        os.fsync = real
    return min(walls), statistics.median(cpus), statistics.median(syncs)


def measure(kind: str, size: int, repeat: int, folder: Path) -> str:
    """One line of the table."""
    from tilemapper.render import render as module

    source = make_source(kind, folder / f"{kind}.tif", size)
    model, target = make_model(folder / "model", 0), folder / f"out-{kind}.tif"
    found: list[tuple[float, float, float]] = []
    real = module.finish

    def finish(staging: Any, tags: Any) -> None:
        found.append(times_of(lambda: real(staging, tags), repeat))

    module.finish = finish
    try:
        cpu = time.process_time()
        module.render(source, target, model, device="cpu", gsd="native")
        whole_s = time.process_time() - cpu
    finally:
        module.finish = real
    wall_s, cpu_s, sync_s = found[0]
    share = cpu_s / (whole_s - (repeat - 1) * cpu_s)
    encoded, raw = target.stat().st_size / 1e6, size * size * 3 * 4 / 3 / 1e6
    return (
        f"| {kind} | {encoded:.1f} | {wall_s:.3f} | {sync_s:.3f} | {cpu_s:.3f} | {share:.1%} | "
        f"{encoded / wall_s:.0f} | {encoded / cpu_s:.0f} | {raw / cpu_s:.0f} |"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--source", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to work")
    given = parser.parse_args()
    print(header())
    print(
        "\n| raster | encoded MB | wall s | of it fsync s | CPU s | of a render's CPU | "
        "encoded MB/s wall | encoded MB/s CPU | raw MB/s CPU |\n|" + 9 * "---|"
    )
    for kind in given.source:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            print(measure(kind, given.size, given.repeat, Path(name)), flush=True)
    print(f"\nload after: {os.getloadavg()[0]:.1f} (1 min)")


if __name__ == "__main__":
    main()
