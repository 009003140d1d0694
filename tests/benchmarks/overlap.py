"""Which overlap of tiles: what shows of the lattice, and what it costs.

    python tests/benchmarks/overlap.py
    python tests/benchmarks/overlap.py --model RUN/model --source city.tif

Renders one raster (the sample city of seed 0 by default) at each overlap and measures what
`tilemapper compare` does: SJI, the jump at lattice lines over that beside them; OD, the
disagreement of overlapping tiles in grey levels; GSI, the mean difference to a render on a lattice
moved by half a stride. Cost is the processor's seconds of the render, over those at 64. "OD as
blended" weighs the same differences as the blend does: the root mean square of the standard
deviation that the sums of w t and w t^2 give, over tiles t of weight w side by side, in float32.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.networks.model import open_model
from tilemapper.raster.blend import LEVELS
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source
from tilemapper.render.block import predict_rows
from tilemapper.render.engine import Engine
from tilemapper.render.layers import palette_of
from tilemapper.render.strips import read_tile_rows

OVERLAPS = (0, 32, 64, 96, 128)
CHOSEN = 64
COLUMNS = (
    "overlap", "SJI", "SJI less off-lattice", "OD", "OD as blended", "GSI mean", "GSI p99",
    "seconds", "cost",
)  # fmt: skip


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


def as_blended(engine: Engine, source: Path, overlap: int) -> float:
    """Grey levels by which tiles side by side disagree, weighted as they are blended.

    Two tiles of weights v and w = 1 - v that differ by d have the weighted variance v w d^2.
    """
    spec = inspect_source(str(source), SourceOptions(), None)
    lattice = Lattice(spec.height, spec.width, overlap, engine.model.card.tile)
    colours = palette_of(engine.model)
    starts, shares = lattice.cols.starts, lattice.cols.weights / lattice.cols.weights.max()
    squares, count = 0.0, 0
    with SourceView(spec) as view:
        tiles = read_tile_rows(view, lattice, Block(0, 0, spec.height, spec.width), spec.fill)
        for row in predict_rows(tiles, engine):
            top = int(lattice.rows.starts[row.index])
            rows = slice(max(0, -top), min(lattice.tile, spec.height - top))
            for place, (left, right) in enumerate(itertools.pairwise(starts)):
                first, end = max(int(right), 0), min(int(left) + lattice.tile, spec.width)
                ours = slice(first - left, max(first, end) - left)
                theirs = slice(first - right, max(first, end) - right)
                apart: NDArray[np.float64] = np.subtract(
                    row.predictions[place][:, rows, ours],
                    row.predictions[place + 1][:, rows, theirs],
                    dtype=np.float64,
                )
                if len(colours):  # from the probabilities' levels to those of the expected colour
                    apart = np.tensordot(colours.T / 255, apart, axes=1)
                share = shares[place, ours] * shares[place + 1, theirs]
                squares += float((share * apart**2).sum())
                count += apart.size
    return float((squares / max(count, 1)) ** 0.5 / LEVELS)


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
        engine = Engine(open_model(arguments.model))
        rows = {}
        for overlap in OVERLAPS:
            target = Path(folder) / f"map_{overlap}.tif"
            before = processor_s()
            run("render", source, target, "--model", arguments.model, "--overlap", overlap)
            cost = processor_s() - before - start_s
            found = run("compare", source, target, "--model", arguments.model, "--json")
            rows[overlap] = cost, found, as_blended(engine, source, overlap)
    print(f"{datetime.date.today()}, {arguments.model}, {found['width']} x {found['height']} px\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{'---|' * len(COLUMNS)}")
    for overlap, (cost, found, blended) in rows.items():
        seams, shift = found["seam_jump"], found["grid_shift"]
        figures = [
            seams["index"], seams["excess"], found["overlap_disagreement"], blended,
            shift["mean"] if shift else None, shift["p99"] if shift else None,
        ]  # fmt: skip
        cells = ["-" if value is None else f"{value:.3f}" for value in figures]
        print(f"| {overlap} | {' | '.join(cells)} | {cost:.1f} | {cost / rows[CHOSEN][0]:.2f} |")


if __name__ == "__main__":
    main()
