"""Scenes over worker processes."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.archive.world import poison, write_archive, write_job
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.run import run_archive
from tilemapper.archive.spreading import Spread
from tilemapper.networks.model import open_model


def outputs(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*_map.tif"))
    }


def two_jobs(folder: Path, model: Path, count: int):
    write_archive(folder / "scenes", count)
    for name in ("one", "two"):
        (folder / name).mkdir()
        path = write_job(folder / name, model, render="batch_size = 1")
        path.write_text(path.read_text().replace('["in"]', f'["{folder / "scenes"}"]'))
        yield load_job(path)


def children() -> list[int]:
    """Process ids below this one, whatever their depth."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


@pytest.mark.fault  # not for what it breaks, but for the half minute that it takes
def test_two_workers_make_the_same_outputs_as_this_process(tmp_path, models, identity):
    one, two = two_jobs(tmp_path, models / "identity", 8)
    poison(tmp_path / "scenes" / "bad")
    alone = run_archive(one, identity)
    spread = run_archive(two, identity, spread=Spread(workers=2))
    assert (spread.done, spread.failed) == (alone.done, alone.failed)
    assert spread.exit_code == 3
    assert outputs(two.root) == outputs(one.root)
    before = {Path(failure["scene"]).name for failure in alone.failures}
    assert {Path(failure["scene"]).name for failure in spread.failures} == before


def test_fewer_scenes_than_workers_are_spread_block_by_block():
    assert Spread(workers=4).few() == {"workers": 4}
    remote = Spread(scheduler="tls://host:8786")
    assert remote.few() == {"scheduler": "tls://host:8786", "insecure": False}


@pytest.mark.fault
def test_a_killed_worker_costs_no_scene(tmp_path, models):
    one, two = two_jobs(tmp_path, models / "slow", 30)
    model = open_model(models / "slow")
    run_archive(one, model)
    ended = threading.Event()

    def kill() -> None:
        for _ in range(2):
            while not ended.is_set() and len(outputs(two.root)) < 3:
                time.sleep(0.1)
            workers = [pid for pid in children() if b"spawn_main" in _command(pid)]
            if workers:
                os.kill(workers[-1], signal.SIGKILL)
            ended.wait(2)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = run_archive(two, model, spread=Spread(workers=2))
    finally:
        ended.set()
        killer.join()
    assert (summary.done, summary.failed, summary.left) == (30, 0, 0), summary
    assert outputs(two.root) == outputs(one.root)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
