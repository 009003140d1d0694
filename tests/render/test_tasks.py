"""What a worker says of a block that is finished and still on its way to the client."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from tilemapper.render.cluster import tasks


class PretendedWorker:
    """Holds the answer of one task until it is fetched."""

    local_directory = "scratch"

    def __init__(self):
        self.said = []
        self.state = SimpleNamespace(tasks={"key": SimpleNamespace(state="memory")})

    def get_current_task(self):
        return "key"

    def log_event(self, topic, message):
        self.said.append((topic, message))


@pytest.fixture
def worker(monkeypatch):
    pretended = PretendedWorker()
    monkeypatch.setattr(tasks, "get_worker", lambda: pretended)
    monkeypatch.setattr(tasks, "_order", lambda payload: None)
    monkeypatch.setattr(tasks, "BEAT_S", 0.02)
    return pretended


def rendered(monkeypatch, files):
    def render_here(order, block, beat, **_how):
        beat(4)
        return "receipt", files

    monkeypatch.setattr(tasks, "render_here", render_here)
    assert tasks._render(b"", None, "b0-1", "topic", bool(files)) == ("receipt", files)


def on_the_way():
    """Those that speak for blocks on their way."""
    return [thread for thread in threading.enumerate() if thread.name == "on-the-way"]


def wait_until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_is_heard_of_until_its_block_has_arrived(worker, monkeypatch):
    """On a slow line a block travels for minutes: a silent worker would be given up."""
    rendered(monkeypatch, {"map.tiles": b"pixels"})
    worker.said.clear()
    wait_until(lambda: len(worker.said) > 2)
    assert worker.said[0] == ("topic", {"ticket": "b0-1", "tiles": 4})
    worker.state.tasks.clear()  # as when the client forgets the ticket
    wait_until(lambda: not on_the_way())


def test_a_block_that_never_arrives_does_not_keep_its_worker_for_ever(worker, monkeypatch):
    monkeypatch.setattr(tasks, "FETCH_S", 0.1)
    rendered(monkeypatch, {"map.tiles": b"pixels"})
    wait_until(lambda: not on_the_way())
    assert worker.state.tasks


def test_a_block_that_does_not_travel_is_over_at_once(worker, monkeypatch):
    rendered(monkeypatch, {})
    assert not on_the_way()
    assert len(worker.said) == 1
