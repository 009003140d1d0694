"""A running cluster whose client is killed, or whose scheduler stops for a while."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client

from tests.faults import test_workers_deaths as deaths
from tests.faults.deaths import Deaths
from tests.faults.table import count
from tests.faults.test_workers_deaths import close, nursed_farm, start, to_the_end, watched
from tests.render.test_cluster import Farm
from tilemapper.render.journal import read_journal
from tilemapper.render.nannies import quiet_dask
from tilemapper.render.staging import staging_folder

scene, expected = deaths.scene, deaths.expected  # fixtures

WORKERS = 2
FREE_S = 10.0  # after which nothing of a client that died keeps a worker busy
PAUSE_S = 5.0
KILLS = 6

PLAIN = {**os.environ, "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def farm_of_two(folder: Path) -> Iterator[Farm]:
    dead = Deaths(folder / "deaths", [])
    farm = nursed_farm(folder, dead, WORKERS)
    try:
        yield farm
    finally:
        farm.runs[0].send_signal(signal.SIGCONT)
        close(farm)
        for process in dead.alive():  # slow to go with their nannies
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def onlooker(farm: Farm) -> Iterator[Client]:
    """Another client of the cluster, once all its workers are there."""
    with quiet_dask(), Client(scheduler_file=str(farm.file), set_as_default=False) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        yield client


def pids(client: Client) -> set[int]:
    return set(client.run(os.getpid).values())


def tasks_left(client: Client) -> int:
    """What the scheduler keeps, and what runs on the workers."""
    kept = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    return kept + sum(client.run(lambda dask_worker: len(dask_worker.state.tasks)).values())


def wait_for_blocks(process: subprocess.Popen, target: Path, blocks: int) -> None:
    begun = time.monotonic()
    while len(read_journal(staging_folder(target) / "journal")) < blocks:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 120
        time.sleep(0.05)


def fault_of_a_kill(scene, target, models, expected, farm, client, moment) -> str | None:
    """Kills a client at a moment; what is wrong afterwards."""
    before, options = pids(client), ("--scheduler", str(farm.file), "--overwrite")
    target.unlink(missing_ok=True)
    process = start(scene, target, models, PLAIN, *options)
    moment(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + FREE_S
    while (left := tasks_left(client)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if left:
        return f"{left} tasks left"
    if pids(client) != before:
        return "workers are gone"
    fault = to_the_end(scene, target, models, expected, PLAIN, *options)
    kept = {path.name for path in target.parent.glob(".*")} | {
        path.name for path in target.parent.glob(f"{target.name}.*")
    }
    return fault or (f"kept {sorted(kept)}" if kept else None)


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_a_killed_client_leaves_a_running_cluster_free_and_nothing_to_be_cleared(
    scene,
    models,
    expected,
    tmp_path,
):
    chance, faults = random.Random(6), []
    target = tmp_path / "maps" / "map.tif"
    target.parent.mkdir()
    with farm_of_two(tmp_path) as farm, onlooker(farm) as client:
        for number in range(KILLS):
            blocks, more_s = chance.randint(0, 12), chance.uniform(0, 1.5)

            def moment(process, blocks=blocks, more_s=more_s) -> None:
                wait_for_blocks(process, target, blocks)
                time.sleep(more_s)

            fault = fault_of_a_kill(scene, target, models, expected, farm, client, moment)
            if fault is not None:
                faults.append(f"kill {number}, {blocks} blocks and {more_s:.1f} s: {fault}")
    count(
        "client killed: running cluster", KILLS, len(faults), f"workers free after {FREE_S:.0f} s"
    )
    assert not faults, faults


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_a_scheduler_that_stops_for_a_moment_costs_nothing_but_that_moment(
    scene,
    models,
    expected,
    tmp_path,
):
    """One that stays stopped: `test_a_scheduler_that_is_lost_ends_the_run_and_keeps_the_blocks`."""
    target, stopped_s = tmp_path / "map.tif", []
    journal = staging_folder(target) / "journal"
    with farm_of_two(tmp_path) as farm:

        def pause() -> None:
            if not stopped_s and read_journal(journal):
                stopped_s.append(time.monotonic())
                farm.runs[0].send_signal(signal.SIGSTOP)
            elif stopped_s and time.monotonic() - stopped_s[0] > PAUSE_S:
                farm.runs[0].send_signal(signal.SIGCONT)

        process = start(scene, target, models, PLAIN, "--scheduler", str(farm.file))
        run = watched(process, target, pause)
    fault = run.fault(expected)
    count("scheduler stopped for 5 s", 1, int(fault is not None or run.code != 0))
    assert (run.code, fault) == (0, None), run.said
    assert stopped_s
