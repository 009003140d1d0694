"""What a worker keeps between blocks, and how many it is at at once."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

from tilemapper.errors import DeviceError
from tilemapper.render import desk


class View:
    made: ClassVar[list[View]] = []

    def __init__(self, source):
        self.source, self.closed = source, False
        View.made.append(self)

    def close(self):
        self.closed = True


def order(device="cpu", *, model="m", source="a.tif", batch=4):
    plan = SimpleNamespace(
        model_digest=model, device=device, precision="fp32", batch_size=batch, tta=False,
        compiled=False, source=source,
    )  # fmt: skip
    return SimpleNamespace(plan=plan, key=(source,), threads=None)


@pytest.fixture
def a_desk(monkeypatch):
    View.made = []
    engines = []
    monkeypatch.setattr(desk, "SourceView", View)
    monkeypatch.setattr(desk, "model_of", lambda order: order.plan.model_digest)
    monkeypatch.setattr(desk, "engine_of", lambda plan, model: engines.append(model) or object())
    monkeypatch.setattr(desk, "painter_of", lambda engine: None)
    made = desk._Desk()
    made.engines = engines
    return made


def test_a_view_that_is_handed_back_meanwhile_is_not_taken_for_ones_own(a_desk):
    """On a GPU blocks of two renders may be at work at once, of one model and two sources."""

    class Busy(list):
        def __iter__(self):  # as one looks, another render hands its view back
            found = list(super().__iter__())
            self.append((order(source="a.tif").key, View("a.tif")))
            return iter(found)

    a_desk._idle = Busy()
    for _ in range(3):
        assert a_desk._view_of(order(source="b.tif"), lambda _: None).source == "b.tif"


def at_once(a_desk, orders, together=1):
    """How many of these orders are served at the same time, at most, by so many meeting."""
    now, most, lock = [0], [0], threading.Lock()
    met = threading.Barrier(together)

    def serve(one):
        with a_desk.open(one, lambda tiles: None):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            met.wait(60)
            time.sleep(0.05)  # for one more than may
            with lock:
                now[0] -= 1

    threads = [threading.Thread(target=serve, args=(one,)) for one in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return most[0]


def test_on_a_cpu_blocks_take_turns_on_a_gpu_two_are_at_it(a_desk):
    assert at_once(a_desk, [order()] * 4) == 1
    assert len(View.made) == 1
    assert at_once(a_desk, [order("cuda:0")] * 6, together=2) == 2
    assert a_desk.engines == ["m", "m"]  # one for each device


def test_another_model_waits_until_the_first_is_free(a_desk):
    mixed = [order("cuda:0", model=str(index % 2)) for index in range(6)]
    assert at_once(a_desk, mixed) <= 2
    with a_desk.open(order("cuda:0", model="0"), lambda tiles: None):
        assert not a_desk._admits(desk._engine_key(order("cuda:0", model="1").plan))
        assert a_desk._admits(desk._engine_key(order("cuda:0", model="0").plan))


def test_engine_and_source_stay_open_until_another_one_comes(a_desk):
    for _ in range(3):
        with a_desk.open(order(), lambda tiles: None) as (_, view):
            pass
    assert (len(View.made), a_desk.engines) == (1, ["m"])
    with a_desk.open(order(source="b.tif"), lambda tiles: None) as (_, other):
        assert (view.closed, other.closed, a_desk.engines) == (True, False, ["m"])


def test_after_an_error_neither_is_trusted(a_desk):
    with (
        pytest.raises(OSError, match="torn"),
        a_desk.open(order(), lambda tiles: None) as (_, view),
    ):
        raise OSError("torn")
    assert view.closed
    with a_desk.open(order(), lambda tiles: None):
        assert len(View.made) == len(a_desk.engines) == 2


def test_a_gpu_that_starts_slowly_does_not_pass_for_hung(a_desk, monkeypatch):
    heard = threading.Event()
    monkeypatch.setattr(desk, "painter_of", lambda engine: heard.wait(60))
    a_desk._engine_of(order("cuda:0"), lambda tiles: heard.set())
    assert heard.is_set()
    a_desk._engine = None
    monkeypatch.setattr(desk, "painter_of", lambda engine: heard.clear())
    a_desk._engine_of(order("cuda:0"), lambda tiles: heard.set())
    assert heard.is_set()  # and once it is open


@pytest.fixture
def ending(monkeypatch):
    """Whether this process is about to end; for the test alone."""
    monkeypatch.setattr(desk, "_ENDING", threading.Event())
    return desk._ENDING


@pytest.mark.parametrize(
    ("error", "broken", "ends"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), True, True),
        # cuDNN finds no algorithm at all where the context is gone, as where memory is short.
        (DeviceError("cuda:0: not enough memory for one tile"), True, True),
        (DeviceError("cuda:0: not enough memory for one tile"), False, False),
        # The next block would end no better in a fresh process: it goes to another worker.
        (RuntimeError("CUDA error: no kernel image is available"), False, False),
        # A worker of a running cluster may hold what others have computed.
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False, False),
    ],
)
def test_a_worker_ends_when_its_gpu_has_failed_and_only_then(
    monkeypatch, ending, error, broken, ends
):
    class Closed:
        def open(self, order, beat):
            raise error

    timers = []
    monkeypatch.setattr(desk, "_DESK", Closed())
    monkeypatch.setattr(desk, "is_broken", lambda device: broken and device == "cuda:0")
    monkeypatch.setattr(desk.threading, "Timer", lambda *how: Timer(timers, how))
    with pytest.raises(DeviceError):
        desk.render_here(order("cuda:0"), None, lambda tiles: None, carry=False)
    assert [how[1] for how in timers] == [desk.os._exit] * ends


def test_a_worker_that_is_about_to_end_fails_no_more_blocks(monkeypatch, ending):
    """It failed all that came in its last second: an only worker failed a block four times."""
    slept = []
    monkeypatch.setattr(desk.threading, "Timer", lambda *how: Timer([], how))
    monkeypatch.setattr(desk, "is_broken", lambda device: True)
    monkeypatch.setattr(desk.time, "sleep", lambda seconds: slept.append(seconds) or sys.exit())
    given = (order("cuda:0"), None, lambda tiles: None)

    class Broken:
        def open(self, order, beat):
            raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(desk, "_DESK", Broken())
    with pytest.raises(DeviceError):
        desk.render_here(*given, carry=False)
    with pytest.raises(SystemExit):  # by then the process has ended
        desk.render_here(*given, carry=False)
    assert slept == [2 * desk.LEAVE_S]


class Timer:
    """Would call once it is due."""

    def __init__(self, started, how):
        self.started, self.how = started, how

    def start(self):
        self.started.append(self.how)
