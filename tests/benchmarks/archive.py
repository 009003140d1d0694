"""What an archive of many scenes costs, and whether its numbers hold.

    python tests/benchmarks/archive.py --scenes 1000
    python tests/benchmarks/archive.py --listed 100000
    python tests/benchmarks/archive.py --ledger 300

--scenes: that many small scenes, ten of them poisoned, through `tilemapper batch`; then again
unchanged; then after touching seven. --listed: listing and planning that many files. --ledger:
what claiming, announcing and publishing a scene costs. Identity model, so the network is free.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.archive.world import BOUNDS, poison, without_privileges, write_archive, write_job

# So that file rights hold for root too, and a scene can be unreadable by them.
PREFIX = without_privileges()


def make_model(folder: Path) -> Path:
    """The identity model."""
    from tilemapper.networks.build import build_generator
    from tilemapper.networks.model import ModelCard, save_model

    card = ModelCard(name="identity", architecture="identity")
    save_model(folder / "identity", card, build_generator("identity", {}, 3, "rgb"), "# stand-in\n")
    return folder / "identity"


def batch(job: Path) -> tuple[int, float, float, list[dict]]:
    """Exit code, wall and CPU seconds with the program's start, and events of one run."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*(PREFIX or []), sys.executable, "-m", "tilemapper", "batch", str(job), "--json", "-q"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, seconds, cpu_s, [json.loads(line) for line in done.stdout.splitlines()]


def measure_scenes(folder: Path, count: int) -> None:
    """First run, second run, run after touching seven."""
    good = write_archive(folder / "in", count - 10)
    poison(folder / "in" / "bad", rights_hold=PREFIX is not None)
    render = f"batch_size = 1\nbounds = {list(BOUNDS)}"
    job = write_job(folder, make_model(folder), render=render)
    print("| run | exit | rendered | failed | wall s | CPU s | in the run s | ms a scene |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ("first", "second", "7 touched"):
        if name == "7 touched":
            for path in good[:7]:
                os.utime(path)
        code, seconds, cpu_s, events = batch(job)
        summary = events[-1]["summary"]
        print(
            f"| {name} | {code} | {summary['done']} | {summary['failed']} | {seconds:.1f} | "
            f"{cpu_s:.1f} | {summary['seconds']:.2f} | {1000 * seconds / count:.1f} |", flush=True,
        )  # fmt: skip
        if name == "first":
            for failure in summary["failures"]:
                print(f"    {failure['error']}"[:150], file=sys.stderr)


def measure_listing(folder: Path, count: int) -> None:
    """Lists and plans empty files: nothing may open them."""
    for index in range(count):
        path = folder / "in" / f"{index % 500:03d}" / f"scene_{index:06d}.tif"
        if index < 500:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    job_path = write_job(folder, make_model(folder))
    print("| step | seconds | peak MB of the process |")
    print("|---|---|---|")
    for name in ("listed, planned and written", "the same again"):
        # Processes of their own: the second would not give back what the first took.
        child = subprocess.run(
            [sys.executable, __file__, "--plan", str(job_path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        print(f"| {count} scenes {name} | {child.stdout.strip()} |", flush=True)


def plan_once(job_path: Path) -> None:
    """Lists, plans and writes; prints seconds, with the imports, and peak memory."""
    begun = time.monotonic()
    from tilemapper.archive.jobfile import load_job
    from tilemapper.archive.ledger import Ledger
    from tilemapper.archive.planning import plan_archive
    from tilemapper.archive.units import listed

    job = load_job(job_path)
    found = listed(job)
    with Ledger(job.work / "ledger.sqlite") as ledger:
        plan_archive(job, found, ledger, model_digest="m").write(ledger)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - begun:.1f} | {peak:.0f}")


def measure_ledger(folder: Path, count: int) -> None:
    """Claim, announce and publish, without any rendering."""
    from tilemapper.archive.ledger import Ledger
    from tilemapper.archive.rows import Change

    ids = [f"{index:032x}" for index in range(count)]
    spent = []
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.begin_run("r", lease_s=60)
        ledger.upsert(Change(i, i, i, "pending", None, None, 1, 1, 1, None) for i in ids)
        for scene in ids:
            begun = time.perf_counter()
            ledger.claim(scene, "r")
            ledger.announce(scene, "r", sha256="0" * 64, facts={"facts": "{}" * 500})
            ledger.publish(scene, "r", lambda: "stamp")
            spent.append(time.perf_counter() - begun)
    median, worst = statistics.median(spent), sorted(spent)[int(0.95 * len(spent))]
    print(f"ledger: median {1000 * median:.2f} ms a scene, 95 % below {1000 * worst:.2f} ms; "
          f"{median:.2%} of 1 s")  # fmt: skip


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--listed", type=int)
    parser.add_argument("--ledger", type=int)
    parser.add_argument("--folder", type=Path, help="where; a temporary folder if not given")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plan:
        plan_once(asked.plan)
        return
    import rasterio
    import torch

    versions = f"torch {torch.__version__}, rasterio {rasterio.__version__}"
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores, load {load:.1f}"
    )
    for count, measure in (
        (asked.scenes, measure_scenes), (asked.listed, measure_listing),
        (asked.ledger, measure_ledger),
    ):  # fmt: skip
        if count:
            with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                measure(Path(folder), count)


if __name__ == "__main__":
    main()
