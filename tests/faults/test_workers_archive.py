"""Workers and schedulers of `batch` die and hang: every scene once, or exit 75 with one line."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archive.world import write_archive, write_job
from tests.conftest import read_raster
from tests.faults.deaths import Death, Deaths, nobody_left
from tests.faults.table import count
from tests.faults.test_workers_deaths import close, nursed_farm

RUN_S = 120
SCENES = 12


def job_in(folder: Path, models: Path, scenes: int = SCENES, **more) -> Path:
    write_archive(folder / "in", scenes, size=600)
    return write_job(folder, models / "slow", render="batch_size = 1", **more)


def start(job: Path, env: dict[str, str], *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tilemapper", "batch", str(job), "--quiet", *more]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def maps(folder: Path) -> dict[str, str]:
    """sha256 of each map's pixels; its tags name the source, which lies in another folder."""
    return {
        path.name: hashlib.sha256(read_raster(path).tobytes()).hexdigest()
        for path in sorted((folder / "out").rglob("*_map.tif"))
    }


def ended(run: subprocess.Popen, begun: float) -> tuple[int | str, str]:
    """Exit code and words; ``hangs`` after two minutes."""
    try:
        said = run.communicate(timeout=max(1.0, RUN_S - (time.monotonic() - begun)))[1]
    except subprocess.TimeoutExpired:
        run.kill()
        return "hangs", run.communicate()[1]
    return run.returncode, said


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_own_workers_of_an_archive_die_and_hang(models, tmp_path):
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "alone").mkdir()
    assert ended(start(job_in(tmp_path / "alone", models), plain), time.monotonic())[0] == 0
    ways = [("kill", "tick", 9), ("stop", "tick", 5), ("segfault", "after", 2)]
    ways += [("exit", "start", 1), ("os-exit", "begin", 2)]
    coming = [Death(number, *way) for number, way in enumerate(ways)]
    (tmp_path / "run").mkdir()
    job, dead = job_in(tmp_path / "run", models), Deaths(tmp_path / "deaths", coming)
    with nobody_left(dead):
        code, said = ended(start(job, dead.environment, "--workers", "2"), time.monotonic())
    right = code == 0 and maps(tmp_path / "run") == maps(tmp_path / "alone")
    count("worker deaths: own workers of batch", len(dead.died), int(not right))
    assert (code, said) == (0, "")
    assert right
    assert len(maps(tmp_path / "run")) == SCENES
    assert len(dead.died) == len(ways)


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["kill", "stop"])
def test_an_archive_whose_scheduler_is_lost_ends_and_goes_on_later(models, tmp_path, way):
    job, dead = job_in(tmp_path, models), Deaths(tmp_path / "deaths", [])
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    farm = nursed_farm(tmp_path, dead, 2)
    try:
        run = start(job, plain, "--scheduler", str(farm.file))
        begun = time.monotonic()
        while len(maps(tmp_path)) < 2:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() - begun < RUN_S
            time.sleep(0.1)
        farm.runs[0].send_signal(signal.SIGKILL if way == "kill" else signal.SIGSTOP)
        code, said = ended(run, time.monotonic())
        done = len(maps(tmp_path))
    finally:
        farm.runs[0].send_signal(signal.SIGCONT)
        farm.runs[0].kill()
        close(farm)
    again, _ = ended(start(job, plain), time.monotonic())
    right = code == 75 and said.count("\n") == 1 and again == 0 and len(maps(tmp_path)) == SCENES
    count(f"scheduler lost: {way}, batch", 1, int(not right))
    assert (code, said.count("\n")) == (75, 1), said
    assert said.startswith("error: ") or "later" in said
    assert 2 <= done < SCENES
    assert again == 0
    assert len(maps(tmp_path)) == SCENES


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("where", ["own workers", "running cluster"])
def test_a_scene_that_sleeps_in_a_worker_whose_heart_beats_on_is_tried_on_another(
    models, tmp_path, where
):
    coming = [Death(0, "sleep", "tick", 5), Death(1, "sleep", "begin", 1)]
    job = job_in(tmp_path, models, 4, retries=1, run="stall_minutes = 0.4")
    dead = Deaths(tmp_path / "deaths", coming)
    with nobody_left(dead):
        if where == "own workers":
            code, said = ended(start(job, dead.environment, "--workers", "2"), time.monotonic())
        else:
            farm = nursed_farm(tmp_path, dead, 2)
            try:
                plain = {**os.environ, "OMP_NUM_THREADS": "1"}
                options = ("--scheduler", str(farm.file))
                code, said = ended(start(job, plain, *options), time.monotonic())
            finally:
                close(farm)
    right = code == 0 and len(maps(tmp_path)) == 4
    count(f"scene that hangs: batch on {where}", len(dead.died), int(not right))
    assert (code, said) == (0, "")
    assert len(maps(tmp_path)) == 4
    assert len(dead.died) == len(coming)


HANGS = """
import sys, time
from tilemapper.archive import worker
from tilemapper.__main__ import main
real = worker.render
def render(source, *arguments, **options):
    if "scene_00001" in source:
        time.sleep(100_000)
    return real(source, *arguments, **options)
worker.render = render
sys.argv[0] = "tilemapper"
sys.exit(main())
"""


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_scene_that_hangs_in_the_process_itself_ends_it_and_is_last_of_the_next_run(
    models, tmp_path
):
    job = job_in(tmp_path, models, 3, run="stall_minutes = 0.1")
    codes, done, lines = [], [], []
    for _ in range(6):
        run = subprocess.Popen(
            [sys.executable, "-c", HANGS, "batch", str(job), "--quiet"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        code, said = ended(run, time.monotonic())
        codes.append(code)
        done.append(len(maps(tmp_path)))
        lines.append(said)
    right = codes == [75] * 5 + [3] and done[1:] == [2] * 5
    count("scene that hangs: batch alone", 5, int(not right))
    assert codes == [75] * 5 + [3], lines
    assert done[1:] == [2] * 5
    assert all("scene_00001.tif: no tile for 0.1 minutes" in line for line in lines[:5])
    assert {line.count("\n") for line in lines[:5]} == {1}
