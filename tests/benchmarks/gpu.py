"""What a CUDA machine gets out of tilemapper: one command, all its figures.

    python tests/benchmarks/gpu.py                  # one GPU, eight minutes are meant
    python tests/benchmarks/gpu.py --total 560      # what is not done then is left out
    python tests/benchmarks/gpu.py --only tests forward
    python tests/benchmarks/gpu.py --rehearse       # the same on a CPU, tiny, two minutes

It runs the tests marked ``gpu`` and the generator alone, renders a tiled raster of 20,000 px,
reading and writing included, by one process and by several that share the GPU, while the GPU's
load is sampled, and trains for a moment. Beside that stand each stage's seconds, bf16 against
fp32, and whether all ways gave the same bytes. Every step runs in a process of its own and is
printed when it is done: what breaks one step, or the clock, leaves the others. From sources,
without installing: PYTHONPATH=. and the wheels of rasterio, dask, distributed, pydantic and their
needs.
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
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_steps
from material import header, make_city, make_large_city, make_model

ROOT = Path(__file__).parents[2]
PARTS = ("tests", "forward", "renders", "levels", "train")


def say(text: str) -> None:
    """Prints at once."""
    print(text, flush=True)


def card() -> str:
    """The GPU's name, driver and power limit."""
    query = "--query-gpu=name,driver_version,power.limit,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True,
            check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
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


def step(
    given: argparse.Namespace, name: str, *args: object, more_s: float = 0
) -> dict[str, Any] | None:
    """One step in a process of its own; None, and its last words, if it fails or hangs."""
    command = [sys.executable, __file__, "--step", name, *map(str, args)]
    command += ["--device", given.device, *(["--tiny"] if given.tiny else [])]
    begun = time.monotonic()
    limit_s = min(given.limit + more_s, given.until - begun)
    if limit_s <= 0:
        say(f"\n{name} LEFT OUT: the {given.total:.0f} s of --total are over")
        return None
    code, said, complained = ended(command, limit_s)
    if code:
        say(f"\n{name} FAILED after {time.monotonic() - begun:.0f} s, exit code {code}:\n"
            f"{complained[-1500:]}")  # fmt: skip
    try:  # one that only failed to end has its figures all the same
        return dict(json.loads(said.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        if not code:
            say(f"\n{name} FAILED, it printed no figures: {said[-500:]}")
        return None


def tests(given: argparse.Namespace) -> None:
    """The tests that need CUDA."""
    rooms = ["tests/render/cuda", "tests/training/test_cuda.py"]
    # Named as they begin, so that one that hangs is known. What other versions of the libraries
    # than the tested ones warn of is no failure of a GPU.
    how = ["-m", "gpu", "-vv", "--tb=short", "-W", "default", "-p", "no:cacheprovider"]
    # Of our own settings none: without pytest-timeout they are refused, and nothing runs.
    how += ["-o", "addopts="]
    command = [sys.executable, "-u", "-m", "pytest", *how, *rooms]
    limit_s = min(2 * given.limit, given.until - time.monotonic())
    code, said, complained = ended(command, limit_s, ROOT)
    say(f"\n## Tests marked gpu\n\n{(said.splitlines() or ['none ran'])[-1]}")
    if code not in (0, 5):
        say(f"{said[-6000:]}{complained[-1000:]}")


def training(given: argparse.Namespace, folder: Path) -> Path | None:
    """Trains for a moment; the model's folder."""
    more_s = 60 * given.minutes
    run = step(given, "train", "--folder", folder, "--minutes", given.minutes, more_s=more_s)
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
    if digests:
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
    parser.add_argument("--total", type=float, default=1500, help="seconds that all may take")
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS)
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
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
    given.until = time.monotonic() + given.total
    say(f"{header()}\n{card()}")
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        parts(given, Path(scratch))


def parts(given: argparse.Namespace, folder: Path) -> None:
    """All that is asked for, the longest last; whatever goes wrong in one, the next one begins."""

    def part(name: str, work: Callable[[], Any]) -> Any:
        if name not in given.only or name in given.skip:
            return None
        try:
            return work()
        except Exception:
            say(f"\n{name} FAILED:\n{traceback.format_exc()[-1500:]}")
            return None

    part("tests", lambda: tests(given))
    first = given.model == "trained"  # what it renders with must be there
    model: Any = part("train", lambda: training(given, folder)) if first else given.model
    if given.width is not None:
        model = make_model(folder / "model", given.width)
    best = part("forward", lambda: forward(given, model)) or float("nan")
    part("renders", lambda: renders(given, folder, model, best))
    part("levels", lambda: levels(given, folder, model))
    if not first:
        part("train", lambda: training(given, folder))


if __name__ == "__main__":
    main()
