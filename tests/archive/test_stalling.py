"""A scene that hangs is told from a slow one, and given up with one line."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from tests.archive.world import write_archive, write_job
from tilemapper.archive import stalling, worker
from tilemapper.archive.engines import render_on_worker
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.run import run_archive
from tilemapper.archive.stalling import left_if_stalled, watched
from tilemapper.archive.task import SceneTask
from tilemapper.errors import JobError, RasterError, TryAgainError
from tilemapper.networks.model import open_model

LIMIT_S = 0.2


@pytest.fixture
def exits(monkeypatch):
    """The codes with which this process would have been ended."""
    codes: list[int] = []
    monkeypatch.setattr(stalling.os, "_exit", codes.append)
    monkeypatch.setattr(stalling, "LEAVE_S", 0.0)
    return codes


@pytest.fixture
def hang():
    """What hangs until the test ends."""
    released = threading.Event()
    yield released.wait
    released.set()


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_scene_that_is_slow_but_gives_signs_of_life_is_left_alone(monkeypatch):
    made, stalls = [], []

    class Told(stalling._Pulse):
        """Looks when the test says so: a busy machine may be late with every sign."""

        def __init__(self, limit_s):
            super().__init__(limit_s)
            self.looks = SimpleQueue()
            self.ended = SimpleNamespace(
                wait=lambda _seconds: self.looks.get(), set=lambda: self.looks.put(True)
            )
            made.append(self)

    monkeypatch.setattr(stalling, "_Pulse", Told)
    with watched(LIMIT_S, lambda: stalls.append(1)) as sign:
        for _ in range(16):
            for _ in range(2):  # the limit is four in a row
                made[0].looks.put(False)
            until(made[0].looks.empty)
            sign(0)
    assert not stalls


def test_a_scene_without_a_sign_of_life_is_told_once():
    stalls = []
    with watched(LIMIT_S, lambda: stalls.append(1)):
        until(lambda: stalls)
        time.sleep(2 * LIMIT_S)
    assert stalls == [1]


def test_a_process_that_was_suspended_has_not_stalled(monkeypatch):
    """Looks are counted: after an hour of SIGSTOP one look has taken an hour."""
    pulse = stalling._Pulse(60.0)
    waits = iter([False] * 30)
    slept = []
    monkeypatch.setattr(pulse.ended, "wait", lambda s: slept.append(s) or next(waits, True))
    assert not pulse.stops()
    assert slept == [stalling.LOOK_S] * 31


def test_a_worker_whose_scene_hangs_says_so_and_ends(hang, exits):
    with pytest.raises(TryAgainError, match="no tile"):
        left_if_stalled(lambda _sign: hang(), LIMIT_S, "no tile")
    until(lambda: exits)
    assert exits == [1]


def test_a_worker_hands_on_what_its_scene_returns_or_raises(exits):
    assert left_if_stalled(lambda _sign: 3, 60.0, "") == 3
    with pytest.raises(ZeroDivisionError):
        left_if_stalled(lambda _sign: 1 // 0, 60.0, "")
    time.sleep(2 * LIMIT_S)
    assert not exits


def test_the_line_of_a_worker_names_the_scene_and_the_key_but_no_secret(
    hang, exits, monkeypatch, models
):
    monkeypatch.setattr(worker, "render", lambda *_arguments, **_options: hang())
    path = "https://host/a.tif?X-Amz-Signature=abcdef"
    options = {"device": "cpu", "precision": "fp32", "batch_size": 1, "tta": False,
               "compiled": False}  # fmt: skip
    folder = str(models / "identity")
    sha256 = open_model(folder).card.digest
    task = SceneTask("1", path, "/staged.tif", folder, sha256, options, stall_s=LIMIT_S)
    with pytest.raises(TryAgainError) as caught:
        render_on_worker(task)
    assert str(caught.value).startswith("https://host/a.tif")
    assert "run.stall_minutes" in str(caught.value)
    assert "abcdef" not in str(caught.value)
    until(lambda: exits)


def test_a_scene_that_hangs_in_this_process_ends_the_run(tmp_path, models, identity, monkeypatch):
    """Until then its run holds it, so that the next run takes it last and counts a death."""
    write_archive(tmp_path / "in", 3)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1",
                             run="stall_minutes = 0.01"))  # fmt: skip
    lines, ended = [], threading.Event()

    def hangs(source, *_arguments, **_options):
        if "scene_00001" in source:
            assert ended.wait(60)
        raise RasterError(f"{source}: not looked at")

    def stalled(line):
        if "scene_00001" not in line:
            return  # a busy machine made that one slow
        with Ledger(job.work / "ledger.sqlite") as ledger:
            lines.append((line, len(ledger.ids("state='running'"))))
        ended.set()

    monkeypatch.setattr(worker, "render", hangs)
    run_archive(job, identity, stalled=stalled)
    ((line, running),) = lines
    assert "scene_00001.tif: no tile for 0.01 minutes (run.stall_minutes)" in line
    assert "\n" not in line
    assert running == 1


def test_no_limit_of_nothing(tmp_path, models):
    with pytest.raises(JobError, match=r"run.stall_minutes"):
        load_job(write_job(tmp_path, models / "identity", run="stall_minutes = 0"))
