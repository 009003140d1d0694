"""Own workers that die or hang while they start, with nannies that only pretend."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Nanny

from tilemapper.errors import NoWorkerError
from tilemapper.memory import ENVIRONMENT
from tilemapper.render.calls import spread_calls
from tilemapper.render.cluster import own
from tilemapper.render.nannies import OwnWorkers, UnfitError

RUNNING, FAILED = SimpleNamespace(name="running"), SimpleNamespace(name="failed")


class Started(own._Nanny):
    """A nanny whose worker starts as ``starts`` says, one after the other."""

    pid, status = 1, RUNNING

    def __init__(self, starts: list[str]) -> None:
        self.starts, self.ended = starts, asyncio.Event()

    async def begin(self) -> SimpleNamespace:
        how = self.starts.pop(0)
        if how == "hangs":
            await self.ended.wait()
            self.ended.clear()
            return FAILED
        if how == "raises":
            raise ValueError("as its start did")
        return RUNNING if how == "runs" else FAILED


@pytest.mark.parametrize("first", ["hangs", "raises", "dies"])
def test_a_worker_that_fails_while_it_starts_is_started_again(monkeypatch, first):
    async def started() -> str:
        nanny = Started([first, "runs"])
        monkeypatch.setattr(own, "end_process", lambda one: one.ended.set())
        return (await asyncio.wait_for(nanny.instantiate(), 5)).name

    monkeypatch.setattr(Nanny, "instantiate", lambda self: self.begin())
    monkeypatch.setattr(own, "START_S", 0.05)
    assert asyncio.run(started()) == "running"


def test_all_workers_are_killed_at_the_end_whatever_state_they_are_in(monkeypatch):
    killed, asked = [], []
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
    workers = OwnWorkers(lambda pid, name: SimpleNamespace(
        pid=pid, status=SimpleNamespace(name=name), close_gracefully=lambda: asked.append(pid)
    ))  # fmt: skip
    for pid, name in enumerate(("init", "running", "failed", "closing"), start=101):
        workers.nanny(pid, name)
    assert not workers.failed
    workers.end()
    assert set(killed) == {101, 102, 103, 104}
    assert asked == [101, 102]


def test_variables_that_nannies_set_are_set_back_and_no_others_are_touched(monkeypatch):
    """This process has other threads: none may ever find its environment empty."""

    class Watched(dict):
        def clear(self):
            raise AssertionError("emptied")

    class PretendedCluster:
        scheduler = SimpleNamespace(workers={"a": 1})

        def __init__(self, **_options):
            os.environ.update(ENVIRONMENT)

        def scale(self, _count):
            os.environ["SET_BY_ANOTHER_THREAD"] = "1"

    first, *others = ENVIRONMENT
    monkeypatch.setattr(own, "_Cluster", PretendedCluster)
    monkeypatch.setattr(own, "_cluster_options", lambda *_: {})
    monkeypatch.setattr(own.OwnWorkers, "end", lambda self: None)
    kept = {name: value for name, value in os.environ.items() if name not in others}
    monkeypatch.setattr(os, "environ", Watched(kept | {first: "its own"}))
    with own.own_workers(1, "cpu", dashboard=False):
        assert os.environ[first] == ENVIRONMENT[first]
    assert os.environ == kept | {first: "its own", "SET_BY_ANOTHER_THREAD": "1"}


def test_a_worker_whose_heart_stands_still_is_ended_while_others_wait():
    """Else nobody would end one that hangs in a scene, SIGSTOP or with the interpreter's lock."""
    assert own.CONFIG["distributed.scheduler.worker-ttl"] == "30s"


@pytest.mark.parametrize("debug", ["", "1"])
def test_what_a_worker_says_while_it_dies_is_for_debugging(debug):
    hush = importlib.util.find_spec(own.HUSH).origin  # not imported: it would hush this process
    program = f"import runpy; runpy.run_path({hush!r}); raise ValueError"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "TILEMAPPER_DEBUG": debug},
    )  # fmt: skip
    assert done.returncode == 1
    assert bool(done.stderr) == bool(debug)


NVML = """
class NVMLError(Exception): pass
class NVMLError_LibraryNotFound(NVMLError): pass
class NVMLError_DriverNotLoaded(NVMLError): pass
class NVMLError_Unknown(NVMLError): pass
def nvmlInit(): pass
def nvmlDeviceGetCount(): raise NVMLError("Driver/library version mismatch")
"""
ONE_WORKER = """
from tilemapper.render.cluster import own
if __name__ == "__main__":
    with own.own_workers(1, "cpu", dashboard=False) as workers:
        print(len(workers.cluster.scheduler.workers))
"""


def test_workers_start_whatever_nvidias_library_says(tmp_path, monkeypatch):
    """dask asks it for a GPU's load, also where we render on a CPU."""
    (tmp_path / "pynvml.py").write_text(NVML)
    (tmp_path / "program.py").write_text(ONE_WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr[-2000:]


def upper_but_in_the_first_process(item: tuple[str, bool, str]) -> tuple[str, int]:
    """What a worker is called with below; its GPU is gone in the first process, or in all."""
    folder, all_gone, text = item
    time.sleep(0.2)  # for the other worker to come
    with contextlib.suppress(FileExistsError), Path(folder, "first").open("x") as file:
        file.write(str(os.getpid()))
    if all_gone or Path(folder, "first").read_text() == str(os.getpid()):
        Path(folder, f"gone-{os.getpid()}").touch()
        raise UnfitError("cuda:0: gone", os.getpid())
    return text.upper(), os.getpid()


@pytest.mark.fault  # not for what it breaks, but for the half minute that it takes
def test_a_worker_without_its_gpu_is_sent_away_for_good_and_its_calls_go_to_the_other(tmp_path):
    items = [(str(tmp_path), False, text) for text in "abcdefgh"]
    found = list(spread_calls(upper_but_in_the_first_process, iter(items), failed=min, workers=2))
    assert sorted(text for text, _ in found) == list("ABCDEFGH")
    assert len(list(tmp_path.glob("gone-*"))) == 1  # its nanny has not started it again
    items = [(str(tmp_path), True, text) for text in "abcd"]
    with pytest.raises(NoWorkerError, match=r"none is left .* \(cuda:0: gone\)"):
        list(spread_calls(upper_but_in_the_first_process, iter(items), failed=min, workers=2))
