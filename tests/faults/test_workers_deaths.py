"""A hundred workers die while they render: right bytes, or exit 75 and nothing lost."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import noise, write_raster
from tests.faults.deaths import MOMENTS, Death, Deaths, deaths, nobody_left
from tests.faults.table import count
from tests.render.test_cluster import Farm
from tilemapper.render.journal import read_journal
from tilemapper.render.render import render
from tilemapper.render.staging import staging_folder

RUN_S = 120  # the longest that a run may take, whatever dies
AT_A_TIME = 8  # deaths in a run
HANGS = 2  # of them
ENOUGH = 52  # deaths of own workers, and again of a cluster's
BURIED_S = 25.0  # after so long someone looks after a cluster's hanging workers


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("deaths") / "city.tif", noise(2100, 2100))


@pytest.fixture(scope="module")
def expected(scene, models, tmp_path_factory):
    """sha256 of the map that this process makes alone."""
    target = tmp_path_factory.mktemp("alone") / "map.tif"
    render(scene, target, models / "slow", block=512)
    return digest(target)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start(scene, target, models, env, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "tilemapper", "render", str(scene), str(target)]
    command += ["--model", str(models / "slow"), "--block", "512", *more]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@dataclass
class Run:
    """How a run ended."""

    code: int
    said: str
    seconds: float
    target: Path

    def fault(self, expected: str) -> str | None:
        """What is wrong with it; None if nothing is."""
        lines = self.said.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        strange = [line for line in lines if not line.startswith(("error: ", "worker "))]
        if self.seconds > RUN_S:
            return f"took {self.seconds:.0f} s"
        if strange:
            return f"said {strange[:3]} … {strange[-3:]}"
        if self.code == 0:
            return None if not errors and digest(self.target) == expected else "other bytes"
        if self.code != 75 or len(errors) != 1:
            return f"exit {self.code}, {self.said[-300:]}"
        if self.target.exists():
            return "a map stands"
        blocks = {path.name for path in (staging_folder(self.target) / "blocks").glob("r*")}
        journal = read_journal(staging_folder(self.target) / "journal")
        return None if {entry.block for entry in journal} <= blocks else "blocks are gone"


def watched(process: subprocess.Popen, target: Path, meanwhile: Callable[[], None]) -> Run:
    """Waits for a run; ``meanwhile`` is called now and then."""
    begun = time.monotonic()
    said: list[str] = []

    def read() -> None:
        with process.stderr as words:
            said.append(words.read())

    reader = threading.Thread(target=read)
    reader.start()
    while process.poll() is None and time.monotonic() - begun < RUN_S + 30:
        meanwhile()
        time.sleep(0.2)
    seconds = time.monotonic() - begun
    if process.poll() is None:
        process.kill()
        process.wait()
    reader.join(10)
    return Run(process.returncode, "".join(said), seconds, target)


def to_the_end(scene, target, models, expected, env, *more) -> str | None:
    """Once nobody dies any more, the same command ends with the same bytes."""
    run = watched(start(scene, target, models, env, *more), target, lambda: None)
    if run.code != 0 or run.fault(expected):
        return f"afterwards: {run.fault(expected)}, {run.said[-300:]}"
    return None


def campaign(name: str, one_run: Callable[[int], tuple[int, str | None]], enough: int) -> None:
    died, faults, seed = 0, [], 0
    while died < enough and seed < enough:
        seed += 1
        more, fault = one_run(seed)
        died += more
        if fault is not None:
            faults.append(f"run {seed}: {fault}")
    count(name, died, len(faults), f"{seed} runs, each ends within {RUN_S} s")
    assert not faults, faults
    assert died >= enough


def own_run(scene, models, expected, folder, coming: list[Death]) -> tuple[int, str | None]:
    """Three own workers; returns how many died, and what went wrong."""
    folder.mkdir()
    dead, target = Deaths(folder / "deaths", coming), folder / "map.tif"
    with nobody_left(dead):
        process = start(scene, target, models, dead.environment, "--workers", "3")
        run = watched(process, target, lambda: None)
    fault = run.fault(expected)
    if run.code == 75 and fault is None:
        fault = to_the_end(scene, target, models, expected, None)
    return len(dead.died), fault


def cluster_run(scene, models, expected, folder, coming: list[Death]) -> tuple[int, str | None]:
    """Three workers of a running cluster, each with a nanny of dask's."""
    folder.mkdir()
    dead, target = Deaths(folder / "deaths", coming), folder / "map.tif"
    client = {**os.environ, "OMP_NUM_THREADS": "1"}
    last = time.monotonic()

    def bury() -> None:
        nonlocal last
        if time.monotonic() - last > BURIED_S:
            last = time.monotonic()
            dead.bury()

    with nobody_left(dead):
        farm = nursed_farm(folder, dead)
        try:
            options = ("--scheduler", str(farm.file))
            run = watched(start(scene, target, models, client, *options), target, bury)
            fault = run.fault(expected)
            if run.code == 75 and fault is None:
                fault = to_the_end(scene, target, models, expected, client)
        finally:
            dead.bury()
            close(farm)
    return len(dead.died), fault


def nursed_farm(folder: Path, dead: Deaths, workers: int = 3) -> Farm:
    farm = Farm(folder, 0, env=dead.environment)
    farm.ready()
    farm.start(
        "dask_worker", f"--scheduler-file={farm.file}", f"--nworkers={workers}", "--nthreads=1",
        "--memory-limit=0", f"--local-directory={folder}",
    )  # fmt: skip
    return farm


def close(farm: Farm) -> None:
    """Nannies first, so that they take their workers along."""
    for run in farm.runs[::-1]:
        run.terminate()
    for run in farm.runs[::-1]:
        try:
            run.wait(timeout=5)
        except subprocess.TimeoutExpired:
            run.kill()
    farm.close()


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_own_workers_die_in_every_way(scene, models, expected, tmp_path):
    campaign(
        "worker deaths: own workers",
        lambda seed: own_run(
            scene, models, expected, tmp_path / str(seed), deaths(seed, AT_A_TIME, hangs=HANGS)
        ),
        ENOUGH,
    )


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_workers_of_a_cluster_die_in_every_way(scene, models, expected, tmp_path):
    campaign(
        "worker deaths: running cluster",
        lambda seed: cluster_run(
            scene,
            models,
            expected,
            tmp_path / str(seed),
            # dask's own nannies give a worker up that dies while it starts.
            deaths(seed, AT_A_TIME, hangs=HANGS, moments=MOMENTS[2:]),
        ),
        ENOUGH,
    )


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_a_worker_that_hangs_at_its_start_holds_up_neither_the_run_nor_its_end(
    scene, models, expected, tmp_path
):
    died, fault = own_run(scene, models, expected, tmp_path / "run", [Death(0, "stop", "start", 1)])
    assert (died, fault) == (1, None)


@pytest.mark.fault
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["kill", "stop"])
def test_a_scheduler_that_is_lost_ends_the_run_and_keeps_the_blocks(
    scene, models, expected, tmp_path, way
):
    dead, target = Deaths(tmp_path / "deaths", []), tmp_path / "map.tif"
    client = {**os.environ, "OMP_NUM_THREADS": "1"}
    farm, journal = nursed_farm(tmp_path, dead, 2), staging_folder(target) / "journal"

    def lose() -> None:
        if farm.runs[0].poll() is None and read_journal(journal):
            farm.runs[0].send_signal(signal.SIGKILL if way == "kill" else signal.SIGSTOP)

    try:
        with nobody_left(dead):
            process = start(scene, target, models, client, "--scheduler", str(farm.file))
            run = watched(process, target, lose)
            farm.runs[0].send_signal(signal.SIGCONT)
            farm.runs[0].kill()
            close(farm)
        fault = run.fault(expected) or to_the_end(scene, target, models, expected, client)
        count(f"scheduler lost: {way}", 1, int(fault is not None or run.code != 75))
        assert (run.code, fault) == (75, None)
        assert "run the same command again" in run.said
    finally:
        close(farm)


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_a_killed_client_leaves_no_process_behind(scene, models, expected, tmp_path):
    """At any moment: while it imports, while workers start, in a block, as it ends."""
    chance, left, kills = random.Random(4), [], 15
    target = tmp_path / "map.tif"
    for number in range(kills):
        dead = Deaths(tmp_path / f"deaths{number}", [])
        process = start(scene, target, models, dead.environment, "--workers", "2", "--overwrite")
        time.sleep(chance.uniform(0.3, 15))
        process.kill()
        process.communicate()
        try:
            with nobody_left(dead):
                pass
        except AssertionError as error:
            left.append(str(error))
    count("client killed: own workers", kills, len(left), "no process left after 5 s")
    assert not left, left
    assert to_the_end(scene, target, models, expected, None, "--overwrite") is None
