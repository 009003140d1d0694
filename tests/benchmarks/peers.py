"""`tilemapper render` against other ways to run the same network over the same raster.

    pip install -c constraints.txt -e '.[bench]'
    pip install --no-deps pytorch-toolbelt terratorch
    python tests/benchmarks/peers.py --size 4096 --width 64
    python tests/benchmarks/peers.py --size 8192 --width 16
    python tests/benchmarks/peers.py --size 1024 --width 0      # identity: do all keep the pixels?

All have the same weights (folded, channels_last, in bf16 where the processor computes in it), the
same batches of tiles of 256 px that overlap by 64, and read and write the same kind of file. Each
runs in a process of its own, in turn, several times; the table has the medians. The clock runs
from the closed source to the closed output; imports and the model's load are not counted, and
everyone paints a raster of 512 px first. CPU seconds are the process's own: what others do on the
machine shows in them less than in the wall.

Peers write a tiled GeoTIFF, DEFLATE 1, with its pixels alone: `render` also makes overviews,
hashes and reads everything back, which nobody else is asked for. Their tiles begin at 0 and not at
-32, so they run fewer; pure forward time is that of each one's own number of tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from contestants import NEEDS, PEERS, TILE, first_pixels, installed
from material import header, in_process, make_city, make_model, make_raster, peak_mib


def one(given: argparse.Namespace) -> dict[str, Any]:
    """Runs one contestant in this process."""
    if given.one == "tilemapper":
        from tilemapper.memory import keep_freed_memory

        keep_freed_memory()  # as the command does
    import torch

    from tilemapper.networks.folding import fold_norms
    from tilemapper.networks.model import open_model
    from tilemapper.render.devices import choose_precision
    from tilemapper.render.engine import open_engine
    from tilemapper.render.render import render

    opened = open_model(given.model)
    precision = choose_precision("auto", "cpu", opened)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    target, small = Path(given.target), Path(given.small)
    options: dict[str, Any] = {"device": "cpu", "batch_size": given.batch}
    if given.one == "tilemapper":
        options |= {"precision": precision, "gsd": "native"}
        engine = open_engine(opened, device="cpu", precision=precision, batch_size=given.batch)
        render(
            small, target.with_name("warm.tif"), opened, engine=engine, overwrite=True, **options
        )
        base = peak_mib()
        begun, cpu = time.perf_counter(), time.process_time()
        tiles = render(given.source, target, opened, engine=engine, **options).tiles
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        return {
            "seconds": seconds,
            "cpu_s": cpu_s,
            "tiles": tiles,
            "peak_mib": peak_mib(),
            "base_mib": base,
        }
    net = fold_norms(opened.generator()).to(dtype, memory_format=torch.channels_last)
    counted = [0]

    def network(batch: Any) -> Any:
        counted[0] += len(batch)
        return net(batch.to(dtype, memory_format=torch.channels_last)).float()

    with torch.inference_mode():
        warm = torch.zeros((given.batch, 3, TILE, TILE))
        for _ in range(3):
            network(warm)
        if given.one in PEERS:
            PEERS[given.one](network, given.batch, small, target.with_name("warm.tif"))
        counted[0], base = 0, peak_mib()
        begun, cpu = time.perf_counter(), time.process_time()
        if given.one == "forward":
            ready = warm.to(dtype, memory_format=torch.channels_last)
            while counted[0] < given.tiles:
                net(ready)
                counted[0] += given.batch
        else:
            PEERS[given.one](network, given.batch, Path(given.source), target)
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "tiles": counted[0],
        "peak_mib": peak_mib(),
        "base_mib": base,
    }


def apart(source: Path, target: Path) -> str:
    """How far an output is from its source; with the identity they should agree."""
    with rasterio.open(source) as a, rasterio.open(target) as b:
        difference = np.abs(a.read().astype(int) - b.read().astype(int))
    return f"mean {difference.mean():.3f}, most {difference.max()} levels from the source"


def compare(given: argparse.Namespace, folder: Path) -> None:
    """All contestants in turn, several times, and the table."""
    source, model = folder / "city.tif", make_model(folder / "model", given.width)
    make = make_raster if given.noise else make_city
    make(source, given.size, given.size)
    small = make_raster(folder / "small.tif", 512, 512)
    names = [name for name in ("forward", "tilemapper", *PEERS) if installed(name)]
    if given.only:
        names = [name for name in names if name in ("forward", *given.only)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    common = ["--source", source, "--small", small, "--model", model, "--batch", given.batch]
    tiles = len(first_pixels(given.size)) ** 2
    for turn in range(given.repeat):
        for name in names:
            target = folder / f"{name.replace(' ', '-')}.tif"
            target.unlink(missing_ok=True)
            run = in_process(__file__, "--one", name, "--target", target, "--tiles", tiles, *common)
            run["load"] = os.getloadavg()[0]
            runs[name].append(run)
            note = apart(source, target) if not given.width and target.exists() else ""
            print(f"turn {turn + 1} {name}: {run} {note}", file=sys.stderr, flush=True)
    table(given, runs)


def median(runs: list[dict[str, Any]], name: str) -> float:
    """The median of one figure."""
    return statistics.median(run[name] for run in runs)


def table(given: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Medians, and the goals' figures."""
    rate = median(runs["forward"], "tiles") / median(runs["forward"], "seconds")
    print(f"\nU-Net-256 width {given.width}, {given.size} x {given.size} px, batch {given.batch}, "
          f"median of {given.repeat}; pure forward {rate:.1f} tiles/s\n")  # fmt: skip
    columns = ("", "wall s", "spread s", "CPU s", "tiles", "tiles/s", "over pure forward",
               "peak MiB", "above torch")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, done in runs.items():
        seconds, tiles = median(done, "seconds"), median(done, "tiles")
        cpu_s = median(done, "cpu_s")
        spread = f"{min(r['seconds'] for r in done):.2f} to {max(r['seconds'] for r in done):.2f}"
        peak, base = median(done, "peak_mib"), median(done, "base_mib")
        cells = (name, f"{seconds:.2f}", spread, f"{cpu_s:.2f}", f"{tiles:.0f}",
                 f"{tiles / seconds:.1f}", f"{seconds * rate / tiles:.3f}", f"{peak:.0f}",
                 f"{peak - base:.0f}")  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    loads = [run["load"] for done in runs.values() for run in done]
    print(f"\nload meanwhile: {min(loads):.1f} to {max(loads):.1f}")
    others = {name: done for name, done in runs.items() if name in PEERS}
    if "tilemapper" in runs and others:
        best = min(others, key=lambda name: median(others[name], "seconds"))
        ours, theirs = runs["tilemapper"], others[best]
        print(
            f"best peer {best}: tilemapper is "
            f"{median(theirs, 'seconds') / median(ours, 'seconds'):.2f} times as fast with "
            f"{median(ours, 'peak_mib') / median(theirs, 'peak_mib'):.3f} of its memory"
        )


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--width", type=int, default=64, help="of the U-Net; 0 is the identity")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--noise", action="store_true", help="a raster of noise, sooner made")
    parser.add_argument("--only", nargs="*", help="these contestants")
    for name in ("--one", "--source", "--small", "--model", "--target"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--tiles", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given)))
        return
    packages = {NEEDS.get(name, name) for name in PEERS if installed(name)} - {"plain loop"}
    print(header(*sorted(packages)))
    with tempfile.TemporaryDirectory() as name:
        compare(given, Path(name))


if __name__ == "__main__":
    main()
