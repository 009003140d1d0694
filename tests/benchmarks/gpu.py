"""What a CUDA machine gets out of tilemapper: one command, all its figures.

    python tests/benchmarks/gpu.py                  # one GPU, about eight minutes
    python tests/benchmarks/gpu.py --rehearse       # the same on a CPU, tiny, two minutes

It runs the tests marked ``gpu``, trains for a moment, and renders a tiled raster of 20,000 px,
reading and writing included, by one process and by several that share the GPU, while the GPU's
load is sampled. Beside that stand the generator alone, each stage's seconds, bf16 against fp32,
and whether all ways gave the same bytes. Every step runs in a process of its own and is printed
when it is done: what breaks one step, or the clock, leaves the others. From sources, without
installing: PYTHONPATH=. and the wheels of rasterio, dask, distributed, pydantic and their needs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gpu_steps
from material import header, make_city, make_large_city, make_model

ROOT = Path(__file__).parents[2]


def say(text: str) -> None:
    """Prints at once."""
    print(text, flush=True)


def card() -> str:
    """The GPU's name, driver and power limit."""
    query = "--query-gpu=name,driver_version,power.limit,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"
    return done.stdout.strip()


def ended(command: list[str], limit_s: float, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; past its limit it is killed, with its workers."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        process_group=0,
    )  # fmt: skip
    try:
        said, complained = process.communicate(timeout=limit_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        said, complained = process.communicate()
        complained += f"\nkilled after {limit_s:.0f} s"
    return process.returncode, said, complained


def step(given: argparse.Namespace, name: str, *args: object) -> dict[str, Any] | None:
    """One step in a process of its own; None, and its last words, if it fails or hangs."""
    command = [sys.executable, __file__, "--step", name, *map(str, args)]
    command += ["--device", given.device, *(["--tiny"] if given.tiny else [])]
    begun = time.monotonic()
    code, said, complained = ended(command, given.limit + 60 * given.minutes)
    if code:
        say(f"\n{name} FAILED after {time.monotonic() - begun:.0f} s:\n{complained[-1500:]}")
        return None
    return dict(json.loads(said.splitlines()[-1]))


def tests(given: argparse.Namespace) -> None:
    """The tests that need CUDA."""
    rooms = ["tests/render/cuda", "tests/training/test_cuda.py"]
    # Named as they begin, so that one that hangs is known. What other versions of the libraries
    # than the tested ones warn of is no failure of a GPU.
    how = ["-m", "gpu", "-vv", "--tb=short", "-W", "default", "-p", "no:cacheprovider"]
    # Of our own settings none: without pytest-timeout they are refused, and nothing runs.
    how += ["-o", "addopts="]
    command = [sys.executable, "-u", "-m", "pytest", *how, *rooms]
    code, said, complained = ended(command, 2 * given.limit, ROOT)
    say(f"\n## Tests marked gpu\n\n{(said.splitlines() or ['none ran'])[-1]}")
    if code not in (0, 5):
        say(f"{said[-6000:]}{complained[-1000:]}")


def training(given: argparse.Namespace, folder: Path) -> Path | None:
    """Trains for a moment; the model's folder."""
    run = step(given, "train", "--folder", folder, "--minutes", given.minutes)
    if run is None:
        return None
    losses = ", ".join(f"{name} {value:.3f}" for name, value in run["losses"].items())
    say(f"\n## Training, preset fast\n\n{run['steps']} steps, {run['steps_s']:.2f} steps/s, "
        f"{run['pairs_s']:.1f} images/s, {run['waiting']:.1%} of the time waiting for them; "
        f"{run['wall_s']:.0f} s with the start and the end; last losses: {losses}")  # fmt: skip
    return Path(run["model"])


def forward(given: argparse.Namespace, model: Path) -> float:
    """The generator alone, by batch; the best rate."""
    say("\n## Generator alone, tiles on the device\n\n| batch | graph | tiles/s |\n|---|---|---|")
    best = float("nan")
    for batch in given.batches:
        run = step(given, "forward", "--model", model, "--batch", batch)
        if run is not None:
            say(f"| {batch} | {'yes' if run['graph'] else 'no'} | {run['tiles_s']:.0f} |")
            best = max(run["tiles_s"], 0.0 if best != best else best)
    return best


def renders(given: argparse.Namespace, folder: Path, model: Path, best: float) -> None:
    """The raster, by one process and by several."""
    begun = time.monotonic()
    source = make_large_city(folder / "city.tif", given.size, part=min(2048, given.size))
    made_s, source_mb = time.monotonic() - begun, source.stat().st_size / 1e6
    columns = ("workers", "batch", "tiles", "wall s", "tiles/s", "of the generator alone",
               "GPU busy, median", "GPU busy, lowest tenth", "output MB", "peak MiB")  # fmt: skip
    say(f"\n## {given.size} x {given.size} px, read, rendered and written\n\n"
        f"source {source_mb:.0f} MB, made in {made_s:.0f} s\n\n| {' | '.join(columns)} |\n"
        f"|{'---|' * len(columns)}")  # fmt: skip
    tables, digests = [], set()
    for workers in given.workers:
        run = step(
            given, "render", "--source", source, "--model", model, "--workers", workers,
            "--target", folder / "map.tif",
        )  # fmt: skip
        if run is None:
            continue
        rate = run["tiles"] / run["seconds"]
        busy = run["busy"] or [float("nan")]
        say(f"| {workers} | {run['batch']} | {run['tiles']} | {run['seconds']:.2f} | {rate:.0f} | "
            f"{rate / best:.3f} | {statistics.median(busy):.0f} % | "
            f"{sorted(busy)[len(busy) // 10]:.0f} % | {run['output_bytes'] / 1e6:.0f} | "
            f"{run['peak_mib']:.0f} |")  # fmt: skip
        digests.add(run["sha256"])
        if run["table"]:
            tables.append(run["table"])
    say(f"\nbytes of all these: {'the same' if len(digests) == 1 else 'NOT the same'}")
    for text in tables:
        say(f"\nStages of the one process, device and host:\n\n{text}")


def levels(given: argparse.Namespace, folder: Path, model: Path) -> None:
    """bf16 against fp32, and the device's blend against the host's."""
    city = make_city(folder / "small.tif", given.small, given.small, seed=1)
    run = step(given, "levels", "--source", city, "--model", model, "--target", folder / "l.tif")
    if run is not None:
        say(f"\n## Levels, {given.small} px\n\n{run['text']}")


def main() -> None:
    """Runs all steps, or one of them in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--small", type=int, default=2048)
    parser.add_argument(
        "--model", default="maps", help="name or folder; 'trained' for the one here"
    )
    parser.add_argument("--width", type=int, help="a U-Net-256 of this width, random weights")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 64, 128, 256])
    parser.add_argument("--workers", nargs="*", default=["1", "3", "6"])
    parser.add_argument("--minutes", type=float, default=1.0, help="of training")
    parser.add_argument(
        "--limit", type=float, default=180, help="seconds a step may take, beside training"
    )
    parser.add_argument("--folder", type=Path, help="where to work, on a fast disk")
    parser.add_argument("--skip", nargs="*", default=[], choices=["tests", "train", "levels"])
    for name in ("--step", "--source", "--target", "--batch"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(getattr(gpu_steps, given.step)(given)))
        return
    if given.rehearse:
        given.size, given.small, given.device, given.batches = 1500, 400, "cpu", [2, 4]
        given.workers, given.minutes, given.tiny, given.limit = ["1", "2"], 0.1, True, 600
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    say(f"{header()}\n{card()}")
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = Path(scratch)
        if "tests" not in given.skip:
            tests(given)
        trained = None if "train" in given.skip else training(given, folder)
        model: Any = trained if given.model == "trained" else given.model
        if given.width is not None:
            model = make_model(folder / "model", given.width)
        best = forward(given, model)
        renders(given, folder, model, best)
        if "levels" not in given.skip:
            levels(given, folder, model)


if __name__ == "__main__":
    main()
