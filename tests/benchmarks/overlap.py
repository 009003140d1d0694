"""Which overlap of tiles: what shows of the lattice, and what it costs.

    python tests/benchmarks/overlap.py
    python tests/benchmarks/overlap.py --model RUN/model --source city.tif

Renders one raster (the sample city of seed 0 by default) at each overlap and measures what
`tilemapper compare` does: SJI, the jump at lattice lines over that beside them; OD, the
disagreement of overlapping tiles in grey levels; GSI, the mean difference to a render on a lattice
moved by half a stride. Cost is the processor's seconds of the render, over those at 64.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

OVERLAPS = (0, 32, 64, 96, 128)
CHOSEN = 64


def run(*words: object) -> dict[str, Any]:
    """The JSON that a command prints."""
    command = [sys.executable, "-m", "tilemapper", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return found


def processor_s() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="maps")
    parser.add_argument("--source", type=Path, help="the sample city by default")
    parser.add_argument("--size", type=int, default=2048, help="of the sample city")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or Path(folder) / "city.tif"
        if arguments.source is None:
            run("sample", source, "--size", arguments.size)
        before = processor_s()
        run("render", "--help")
        start_s = processor_s() - before
        rows = {}
        for overlap in OVERLAPS:
            target = Path(folder) / f"map_{overlap}.tif"
            before = processor_s()
            run("render", source, target, "--model", arguments.model, "--overlap", overlap)
            cost = processor_s() - before - start_s
            found = run("compare", source, target, "--model", arguments.model, "--json")
            rows[overlap] = cost, found
    print(f"{datetime.date.today()}, {arguments.model}, {found['width']} x {found['height']} px\n")
    print("| overlap | SJI | SJI less off-lattice | OD | GSI mean | GSI p99 | seconds | cost |")
    print(f"|{'---|' * 8}")
    for overlap, (cost, found) in rows.items():
        seams, shift = found["seam_jump"], found["grid_shift"]
        figures = [
            seams["index"], seams["excess"], found["overlap_disagreement"],
            shift["mean"] if shift else None, shift["p99"] if shift else None,
        ]  # fmt: skip
        cells = ["-" if value is None else f"{value:.3f}" for value in figures]
        print(f"| {overlap} | {' | '.join(cells)} | {cost:.1f} | {cost / rows[CHOSEN][0]:.2f} |")


if __name__ == "__main__":
    main()
