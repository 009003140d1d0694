"""What the page of a large pair costs: wall and CPU seconds, peak memory, bytes.

    python tests/benchmarks/compare.py --size 20000 --folder FOLDER

Makes a synthetic city and its true map of that size in the folder (unless they are there), renders
it with a stand-in that costs nothing, and runs `tilemapper compare` three times.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

PALETTE = {"land": (232, 228, 224), "water": (177, 209, 255), "road": (255, 255, 255)}
RUNS = 3


def tilemapper(*args: object) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak MiB of one command, its start included."""
    begun = time.monotonic()
    running = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *map(str, args)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"{args}: exit {running.returncode}")
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def make_model(folder: Path) -> Path:
    """A palette of three over the identity."""
    from tilemapper.networks.build import build_generator
    from tilemapper.networks.model import ModelCard, PaletteClass, save_model

    palette = tuple(PaletteClass(name=name, colour=colour) for name, colour in PALETTE.items())
    card = ModelCard(name="classes", architecture="identity", head="palette", palette=palette)
    generator = build_generator("identity", {}, card.channels, card.head)
    save_model(folder / "classes", card, generator, "# stand-in\n")
    return folder / "classes"


def main() -> None:
    """Makes what is missing, measures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    city, truth, target, page = (
        given.folder / f"{name}{given.size}.{kind}"
        for name, kind in (("city", "tif"), ("truth", "tif"), ("map", "tif"), ("page", "html"))
    )
    model = make_model(given.folder)
    if not city.exists():
        tilemapper("sample", city, "--truth", truth, "--size", given.size, "--seed", 1)
    if not target.exists():
        tilemapper("render", city, target, "--model", model)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| options | wall s | CPU s | peak MiB | page MB |\n|---|---|---|---|---|")
    for options in ((), ("--truth", truth)):
        for _ in range(RUNS):
            found = tilemapper(
                "compare", city, target, "--out", page, "--overwrite", "--model", model, *options
            )
            words = " ".join(option for option in options if isinstance(option, str)) or "none"
            figures = " | ".join(f"{value:.1f}" for value in found)
            print(f"| {words} | {figures} | {page.stat().st_size / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
