"""What the pipeline carries when the network costs nothing, stage by stage; and what it writes.

    python tests/benchmarks/ceiling.py --size 8192
    python tests/benchmarks/ceiling.py --size 8192 --source map     # flat colours, as maps have

The identity stands in for the generator. One process renders the raster, on all cores that it
finds: output pixels a second, the share of each stage, megabytes of encoded bytes a second of
`finish`. Then GDAL writes the same pixels in one go (GTiff into its COG driver with the same
compression, overviews by average), and the sizes are compared. CPU seconds are those of the
threads themselves, so that other work on the machine hardly shows in them; wall seconds it does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from material import header, make_model, make_raster
from stages import Meter, measured, table


def make_source(kind: str, path: Path, size: int) -> Path:
    """Noise, the synthetic city, or that city's map."""
    if kind == "noise":
        return make_raster(path, size, size)
    from tilemapper.report.city import write_city

    city, truth = path.with_name("city.tif"), path.with_name("truth.tif")
    write_city(city, truth=truth, height=size, width=size)
    return city if kind == "city" else truth


def run(source: Path, model: Path, target: Path, block: int | None) -> dict[str, Any]:
    """One render, measured."""
    from tilemapper.render.render import render

    with measured() as meter:
        cpu, wall = time.process_time(), time.perf_counter()
        result = render(
            source, target, model, device="cpu", gsd="native", overwrite=True, block=block
        )
        return {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "meter": meter,
            "result": result,
        }


def one_shot(path: Path, folder: Path) -> tuple[int, float]:
    """Bytes of the same pixels when GDAL writes them in one go, and its seconds."""
    from tilemapper.raster.encode import FILE_BLOCK, Encoding

    again = folder / "one-shot.tif"
    encoding = Encoding()
    options = {"COMPRESS": encoding.compress, "LEVEL": str(encoding.level), "PREDICTOR": "YES"}
    options |= {"BLOCKSIZE": str(FILE_BLOCK), "OVERVIEWS": "IGNORE_EXISTING"}
    options |= {"RESAMPLING": "AVERAGE", "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS"}
    begun = time.perf_counter()
    rasterio.shutil.copy(str(path), str(again), driver="COG", **options)
    return again.stat().st_size, time.perf_counter() - begun


def wall_of(meter: Meter, prefix: str) -> float:
    """Wall seconds of a stage with its own stages."""
    return sum(times[1] for name, times in meter.times.items() if name.startswith(prefix))


def report(runs: list[dict[str, Any]], given: argparse.Namespace, target: Path) -> None:
    """The tables."""
    runs = sorted(runs, key=lambda run: run["wall_s"])
    middle = runs[len(runs) // 2]
    meter, cpu_s, wall_s = middle["meter"], middle["cpu_s"], middle["wall_s"]
    pixels, tiles = given.size**2, middle["result"].tiles
    cores = len(os.sched_getaffinity(0))
    print(table(meter, cpu_s, wall_s))
    walls = ", ".join(f"{run['wall_s']:.2f}" for run in runs)
    print(
        f"\nwall {walls} s; CPU {statistics.median(r['cpu_s'] for r in runs):.2f} s; {tiles} tiles"
    )
    print(f"{pixels / wall_s / 1e6:.1f} Mpx/s, {tiles / wall_s:.0f} tiles/s on {cores} cores")
    # A GPU does the generator's share and the blend's; its host reads, encodes and stages.
    taken = sum(meter.times[name][0] for name in ("generator", "blend", "seam", "cut"))
    host_s = cpu_s - taken
    print(
        f"{1e3 * cpu_s / tiles:.2f} ms of CPU a tile, {1e3 * host_s / tiles:.2f} ms of them not "
        f"taken over by a GPU: 16 such cores carry at most {16 * tiles / host_s:.0f} tiles/s, "
        f"{16 * pixels / host_s / 1e6:.0f} Mpx/s, whatever the GPUs;"
    )
    print(f"8 GPUs at 10,000 tiles/s each need {80_000 * host_s / tiles:.0f} such cores")
    size = target.stat().st_size
    finish_s, join_s = wall_of(meter, "finish"), meter.times["finish: join"][1]
    print(
        f"\nfinish {finish_s:.2f} s ({finish_s / wall_s:.1%} of wall) for {size / 1e6:.1f} MB: "
        f"{size / finish_s / 1e6:.0f} MB/s; joining alone {join_s:.2f} s, "
        f"{size / max(join_s, 1e-9) / 1e6:.0f} MB/s, the rest reads everything back"
    )
    again, seconds = one_shot(target, target.parent)
    print(f"one-shot write by GDAL: {again / 1e6:.1f} MB in {seconds:.1f} s; ours is "
          f"{size / again:.4f} of its size")  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--source", choices=["noise", "city", "map"], default="city")
    parser.add_argument("--block", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work")
    given = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        source = make_source(given.source, folder / "source.tif", given.size)
        model = make_model(folder / "model", 0)
        small = make_raster(folder / "small.tif", 512, 512)
        run(small, model, folder / "warm.tif", None)
        target = folder / "map.tif"
        print(f"{given.source}, {given.size} x {given.size} px, identity\n")
        report(
            [run(source, model, target, given.block) for _ in range(given.repeat)], given, target
        )
        print(f"\nload after: {os.getloadavg()[0]:.1f} (1 min)")


if __name__ == "__main__":
    main()
