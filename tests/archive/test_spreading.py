"""Scenes over worker processes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.archive.world import poison, write_archive, write_job, write_scene
from tilemapper.archive import run as run_module
from tilemapper.archive import worker
from tilemapper.archive.decisions import Decision
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.run import run_archive
from tilemapper.archive.scene import Scene
from tilemapper.archive.spreading import Spread
from tilemapper.archive.task import SceneTask
from tilemapper.errors import NoWorkerError
from tilemapper.networks.model import open_model
from tilemapper.render import calls


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


def descendants(top: int) -> list[int]:
    """Process ids below another, whatever their depth."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [top]
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
    spread = run_archive(two, identity, spread=lambda: Spread(workers=2))
    assert (spread.done, spread.failed) == (alone.done, alone.failed)
    assert spread.exit_code == 3
    assert outputs(two.root) == outputs(one.root)
    before = {Path(failure["scene"]).name for failure in alone.failures}
    assert {Path(failure["scene"]).name for failure in spread.failures} == before


def writers(staging: Path, ended: threading.Event) -> set[int]:
    """Process ids of those that wrote blocks, from the names of folders that are being written."""
    found: set[int] = set()
    while not ended.is_set():
        for path in staging.glob("*.part/blocks/.*"):
            named = re.fullmatch(r"\.(?!trial)[^.]+\.(\d+)\.[0-9a-f]{8}", path.name)
            if named:
                found.add(int(named[1]))
        time.sleep(0.002)
    return found


@pytest.mark.fault
def test_the_blocks_of_one_scene_are_done_by_both_of_two_workers(tmp_path, models):
    write_scene(tmp_path / "scenes" / "large.tif", 1, size=1200)
    jobs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = write_job(tmp_path / name, models / "slow", render="batch_size = 1\nblock = 512")
        path.write_text(path.read_text().replace('["in"]', f'["{tmp_path / "scenes"}"]'))
        jobs.append(load_job(path))
    one, two = jobs
    model = open_model(models / "slow")
    run_archive(one, model)
    ended = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        watched = pool.submit(writers, two.work / "staging", ended)
        try:
            summary = run_archive(two, model, spread=lambda: Spread(workers=2))
        finally:
            ended.set()
    assert (summary.done, summary.exit_code) == (1, 0), summary
    assert len(watched.result() - {os.getpid()}) == 2
    assert outputs(two.root) == outputs(one.root)


def many_or_few(scenes: list[Decision], workers: int, monkeypatch) -> tuple[list[str], list[str]]:
    """Which of the scenes are spread whole, and which block by block."""
    many: list[str] = []
    few: list[str] = []
    spread = Spread(workers=workers)
    monkeypatch.setattr(Spread, "many", lambda _self, tasks: many.extend(tasks) or ())
    monkeypatch.setattr(worker, "render_scene", lambda task, **_more: few.append(task))

    class Claims:
        tick = stalled = None

        def tasks(self, batch, more=None):
            assert more in (None, {"workers": workers})
            return (decision.scene.stem for decision in batch)

    list(run_module._outcomes(Claims(), scenes, spread))
    return many, few


def scenes_of(sizes: dict[str, int | None]) -> list[Decision]:
    return [
        Decision(Scene(f"/in/{name}.tif", name, size_bytes=size), ("/out",), True, "new")
        for name, size in sizes.items()
    ]


@pytest.mark.parametrize(
    ("sizes", "workers", "few"),
    [
        ({"a": 1, "b": 1}, 4, ["a", "b"]),  # fewer than workers
        ({"a": 1, "b": 1, "c": 1, "d": 1}, 4, []),
        ({"a": 1, "b": 1, "c": 10**9}, 2, ["c"]),  # the last one would keep one worker alone busy
        ({"a": 10**9, "b": 1, "c": 1}, 2, []),  # a small rest is not worth it
        ({"a": 1, "b": 1, "c": None}, 2, ["c"]),
    ],
)
def test_scenes_are_spread_whole_first_and_block_by_block_when_they_are_few(
    sizes, workers, few, monkeypatch
):
    whole = [name for name in sizes if name not in few]
    assert many_or_few(scenes_of(sizes), workers, monkeypatch) == (whole, few)


def test_a_cluster_is_asked_how_many_workers_it_has(monkeypatch):
    monkeypatch.setattr(
        calls, "staff", lambda scheduler, insecure, device: {"auto": 8, "cpu": 9}[device]
    )
    remote = Spread(scheduler="tls://host:8786", device="auto")
    assert remote.staff == 8
    assert remote.few() == {"scheduler": "tls://host:8786", "insecure": False}


@pytest.mark.fault
def test_sigterm_ends_a_run_with_workers_within_ten_seconds_and_leaves_none_behind(
    tmp_path, models
):
    write_archive(tmp_path / "in", 40, size=600)
    path = write_job(tmp_path, models / "slow", render="batch_size = 1")
    process = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", "batch", str(path), "-q", "--workers", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    root = load_job(path).root
    while process.poll() is None and not outputs(root):
        time.sleep(0.05)
    below = descendants(process.pid)
    begun = time.monotonic()
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 10
    time.sleep(1)
    assert len(below) >= 2
    assert not [pid for pid in below if _command(pid)]
    with Ledger(load_job(path).work / "ledger.sqlite") as ledger:
        assert ledger.counts()["running"] == 0
        assert 0 < ledger.counts()["done"] < 40


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
            workers = [pid for pid in descendants(os.getpid()) if b"spawn_main" in _command(pid)]
            if workers:
                os.kill(workers[-1], signal.SIGKILL)
            ended.wait(2)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = run_archive(two, model, spread=lambda: Spread(workers=2))
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


@pytest.mark.fault
def test_a_cluster_that_runs_already_does_an_archive(tmp_path, models, identity):
    """As compose.yaml starts it: `dask scheduler`, two of `dask worker`, and the batch."""
    one, two = two_jobs(tmp_path, models / "identity", 6)
    run_archive(one, identity)
    services = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())["services"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    here = {
        "0.0.0.0": "127.0.0.1", "8786": str(port), "tcp://scheduler:8786": address,
        "/tmp": str(tmp_path),
    }  # fmt: skip

    def started(service: str) -> subprocess.Popen:
        words = [here.get(word, word) for word in services[service]["entrypoint"]]
        assert words[0] == "dask"
        command = [sys.executable, "-c", "from dask.__main__ import main; main()", *words[1:]]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    cluster = [started(name) for name in ("scheduler", "worker", "worker")]
    try:
        spread = Spread(scheduler=address)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(NoWorkerError):
                if calls.staff(address) == 2:
                    break
            time.sleep(0.5)
        assert spread.staff == 2
        assert run_archive(two, identity, spread=lambda: spread).done == 6
    finally:
        for process in cluster[::-1]:
            process.terminate()
            process.wait()
    assert outputs(two.root) == outputs(one.root)


@pytest.mark.parametrize(
    ("where", "device", "seen"),
    [
        ({"workers": 2}, "cuda:1,0", "cuda:0"),
        ({"workers": 2}, "cpu", "cpu"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "cuda:1", "cuda:1"),  # its workers see all of theirs
    ],
)
def test_each_of_our_own_workers_renders_on_the_one_gpu_that_it_sees(
    monkeypatch, where, device, seen
):
    """By its number here it would not find it: every scene of the archive failed."""
    given = {}

    def spread_calls(work, tasks, **options):
        given.update(options, tasks=list(tasks))
        return iter(())

    monkeypatch.setattr(calls, "spread_calls", spread_calls)
    task = SceneTask("a", "a.tif", "a_map.tif", "maps", "", {"device": device, "overlap": 64})
    list(Spread(device=device, **where).many(iter([task])))
    assert given["device"] == device
    assert [one.options for one in given["tasks"]] == [{"device": seen, "overlap": 64}]
