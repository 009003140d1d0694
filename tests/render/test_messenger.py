"""Which workers of a cluster come into question, and what dask's answers mean."""

from __future__ import annotations

import asyncio

import pytest
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from tilemapper.errors import RasterError
from tilemapper.raster.lattice import Block
from tilemapper.render.crew import Examined, Finished, Progress
from tilemapper.render.messenger import Messenger, Tasks, candidates

BLOCK = Block(0, 0, 512, 512)


class FakeFuture:
    def __init__(self, client, options):
        self.client, self.options, self.fetch = client, options, None

    def done(self, answer):
        """The answer arrives, or the client learns that none will: then it is an exception."""
        self.answer = answer
        asyncio.run(self.fetch())

    def cancel(self):
        pass


class FakeClient:
    """What a messenger needs of dask's client."""

    def __init__(self, workers):
        self.workers, self.futures, self.scheduler = workers, [], self
        self.identity, self.loop = None, self

    def sync(self, function, **options):
        if isinstance(self.workers, Exception):
            raise self.workers
        return {"workers": self.workers}

    def subscribe_topic(self, topic, handler):
        self.topic, self.hear = topic, handler

    def submit(self, function, *arguments, **options):
        self.futures.append(FakeFuture(self, options))
        return self.futures[-1]

    def add_callback(self, function, name, future):
        future.fetch = lambda: function(name, future)

    async def gather(self, future, asynchronous):
        if isinstance(future.answer, BaseException):
            raise future.answer
        return future.answer


def worker(gpu=0, status="running"):
    return {"resources": {"GPU": gpu} if gpu else {}, "status": status}


class FakePlan:
    device, fingerprint = "cuda:0", "f" * 64


class FakeOrder:
    plan = FakePlan()


def messenger(client):
    return Messenger(client, FakeOrder(), Tasks("json", len, max, min), None)


def test_workers_that_declare_a_gpu_are_the_only_ones_asked_when_some_do():
    client = FakeClient({"a": worker(gpu=1), "b": worker(), "c": worker(gpu=2)})
    assert candidates(client, gpu=True) == {"a": True, "c": True}
    assert candidates(client, gpu=False) == {"a": False, "b": False, "c": False}
    client.workers = {"a": worker(), "b": worker(status="paused")}
    assert candidates(client, gpu=True) == {"a": False}


def test_a_scheduler_that_does_not_answer_is_no_empty_cluster():
    assert candidates(FakeClient(OSError("gone")), gpu=True) is None
    assert messenger(FakeClient(TimeoutError())).present() is None


def test_a_block_goes_to_one_worker_asks_for_its_gpu_and_has_a_key_of_its_own():
    client = FakeClient({"a": worker(gpu=1)})
    crew = messenger(client)
    crew.present()
    crew.render("one-1", "a", BLOCK, carry=False)
    crew.render("one-2", "a", BLOCK, carry=False)
    first, second = (future.options for future in client.futures)
    assert first["resources"] == {"GPU": 1}
    assert (first["workers"], first["allow_other_workers"]) == (["a"], False)
    assert first["key"] != second["key"]
    assert "one-1" in first["key"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("receipt", {}), ("receipt", {})),
        (FutureCancelledError("key", "scheduler-restart"), None),
        (KilledWorker("key", None, 3), None),
    ],
)
def test_a_lost_worker_is_told_from_an_answer(answer, expected):
    client = FakeClient({"a": worker()})
    crew = messenger(client)
    crew.render("x-1", "a", BLOCK, carry=False)
    client.futures[0].done(answer)
    assert list(crew.events(1)) == [Finished("x-1", expected)]


def test_an_error_of_a_block_comes_as_it_is():
    client, error = FakeClient({"a": worker()}), RasterError("city.tif: bad")
    crew = messenger(client)
    crew.render("x-1", "a", BLOCK, carry=False)
    client.futures[0].done(error)
    assert list(crew.events(1)) == [Finished("x-1", error)]


def test_an_answer_that_hangs_at_a_dead_worker_does_not_hold_up_the_others():
    client = FakeClient({"a": worker(), "b": worker()})
    crew = messenger(client)
    crew.render("x-1", "a", BLOCK, carry=False)
    crew.render("x-2", "b", BLOCK, carry=False)
    client.futures[1].done(("receipt", {}))
    assert list(crew.events(1)) == [Finished("x-2", ("receipt", {}))]
    crew.forget("x-1")  # its worker is gone
    client.futures[0].done(FutureCancelledError("key", "cancelled"))
    assert list(crew.events(0.01)) == []


def test_what_was_forgotten_is_not_heard_of_again():
    client = FakeClient({"a": worker()})
    crew = messenger(client)
    crew.render("x-1", "a", BLOCK, carry=False)
    crew.forget("x-1")
    client.futures[0].done(("receipt", {}))
    client.hear((0.0, {"ticket": "x-2", "tiles": 5}))
    assert list(crew.events(1)) == [Progress("x-2", 5)]


def test_a_worker_lost_while_it_looks_around_has_no_answer():
    client = FakeClient({"a": worker()})
    crew = messenger(client)
    crew.examine("a")
    client.futures[-1].done(FutureCancelledError("key", "lost"))
    assert list(crew.events(1)) == [Examined("a", None)]


def test_what_cannot_be_sent_counts_as_lost():
    client = FakeClient({"a": worker()})
    crew = messenger(client)

    def closed(*arguments, **options):
        raise RuntimeError("Tried sending message after closing")

    client.submit = closed
    crew.examine("a")
    crew.render("x-1", "a", BLOCK, carry=False)
    assert list(crew.events(1)) == [Examined("a", None), Finished("x-1", None)]
