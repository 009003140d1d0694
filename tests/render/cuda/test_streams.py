"""The device's streams with a pretended device: who waits for whom, without a GPU.

Streams keep vector clocks. What one of them reads or writes must have been waited for by it, and
memory that another than its own stream uses must be told so, or it is given away too early.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.conftest import noise
from tests.pretended import DEVICE
from tests.render.cuda.test_block import joined, masked, on_host
from tests.render.cuda.test_pretended import GPU, Graph
from tests.render.test_block import ArrayView
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Lattice
from tilemapper.render.block import grey_rows
from tilemapper.render.cuda import block as blocks
from tilemapper.render.cuda import painter as painting
from tilemapper.render.cuda.block import device_rows
from tilemapper.render.cuda.painter import painter_of
from tilemapper.render.engine import Engine
from tilemapper.render.seam import Seam

pytestmark = pytest.mark.filterwarnings("ignore:Please use the new API settings")


class RaceError(AssertionError):
    """A stream uses what it has not waited for."""


class Stream:
    """Does at once what it is given; ``seen`` is how far it knows each stream to be."""

    def __init__(self, device=None):
        self.seen = {self: 0}

    def wait_event(self, event):
        for stream, count in event.items():
            self.seen[stream] = max(self.seen.get(stream, 0), count)

    def wait_stream(self, other):
        self.wait_event(other.seen)

    def record_event(self, event=None):
        event = Event() if event is None else event
        event.update(self.seen)
        return event

    def synchronize(self):
        CLOCKS.host.wait_event(self.seen)

    def step(self):
        self.wait_event(CLOCKS.host.seen)  # it is the host that launches
        self.seen[self] += 1
        return self, self.seen[self]

    def follows(self, stamp):
        return self.seen.get(stamp[0], 0) >= stamp[1]


class Event(dict):
    def __init__(self, *, blocking=False):
        self.blocking = blocking

    def synchronize(self):
        CLOCKS.waits.append(self.blocking)
        CLOCKS.host.wait_event(self)


class Clocks:
    """Who used which memory last."""

    def reset(self):
        self.host, self.current = Stream(), Stream()
        self.kept, self.writes, self.reads = [], {}, {}
        self.owner, self.users, self.told = {}, {}, set()
        self.lasting, self.waits = set(), []

    def use(self, stream, tensor, stamp, *, write):
        key = tensor.untyped_storage()._cdata
        before = [self.writes[key]] if key in self.writes else []
        before += self.reads.get(key, []) if write else []
        if not all(stream.follows(one) for one in before):
            raise RaceError(f"{'write' if write else 'read'} of {tuple(tensor.shape)}")
        if write:
            self.writes[key], self.reads[key] = stamp, []
        else:
            self.reads.setdefault(key, []).append(stamp)
        self.users.setdefault(key, set()).add(stream)

    def make(self, stream, tensor, stamp):
        self.kept.append(tensor.untyped_storage())  # so that its place is not used again
        key = tensor.untyped_storage()._cdata
        self.owner[key], self.users[key] = stream, {stream}
        self.writes[key], self.reads[key] = stamp, []

    def knows(self, tensor):
        return tensor.untyped_storage()._cdata in self.owner

    def strays(self):
        """Memory of a stream that others use without having said so, unless it outlives all use."""
        return [
            key
            for key, owner in self.owner.items()
            for user in self.users[key] - {owner}
            if key not in self.lasting and (key, user) not in self.told
        ]


CLOCKS = Clocks()


class Operations(TorchDispatchMode):
    """What is done on the device is done by the current stream."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        made = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
        if not any(GPU.holds(t) for t in (*given, *made)):
            return result
        stream, stamp = CLOCKS.current, CLOCKS.current.step()
        old = {t.untyped_storage()._cdata for t in given}
        changed = [
            a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments
        ]
        for value, write in zip(args, changed, strict=False):
            for tensor in tree_flatten(value)[0]:
                if isinstance(tensor, Tensor):
                    CLOCKS.use(stream, tensor, stamp, write=write)
        for tensor in made:
            if tensor.untyped_storage()._cdata not in old:
                CLOCKS.make(stream, tensor, stamp)
        return result


class Copies(TorchFunctionMode):
    """Copies between both sides, and what the host looks at."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if func is Tensor.numpy and not CLOCKS.host.follows(
            CLOCKS.writes.get(first.untyped_storage()._cdata, (CLOCKS.host, 0))
        ):
            raise RaceError("the host reads what is still on its way")
        result = func(*args, **kwargs)
        # What is copied up, and what is made from nothing, such as sums of zeros.
        if isinstance(result, Tensor) and GPU.holds(result) and not CLOCKS.knows(result):
            CLOCKS.make(CLOCKS.current, result, CLOCKS.current.step())
        waits = (Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.__bool__)
        if func in waits or (func is Tensor.to and not kwargs.get("non_blocking")):
            CLOCKS.current.synchronize()
        return result


def told(tensor, stream):
    """`Tensor.record_stream`, which takes no streams but real ones."""
    CLOCKS.told.add((tensor.untyped_storage()._cdata, stream))


@contextlib.contextmanager
def current(stream):
    before, CLOCKS.current = CLOCKS.current, stream
    yield
    CLOCKS.current = before


@pytest.fixture
def gpu(monkeypatch):
    CLOCKS.reset()
    monkeypatch.setattr(Tensor, "record_stream", told)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: CLOCKS.current)
    monkeypatch.setattr(painting, "_Graph", Graph)
    monkeypatch.setattr(blocks, "staged", lambda items, **_: contextlib.nullcontext(iter(items)))
    for name in ("benchmark", "deterministic", "allow_tf32"):
        before = getattr(torch.backends.cudnn, name)
        monkeypatch.setattr(torch.backends.cudnn, name, before)  # set back at the end
    with GPU, Operations(), Copies():
        yield monkeypatch


def painted(model, **options):
    """A raster with holes, by the device's path."""
    engine = Engine(open_model(model), device=str(DEVICE), batch_size=3)
    CLOCKS.lasting = set(CLOCKS.owner)  # its weights
    view = ArrayView(noise(500, 200).transpose(1, 2, 0), masked(500, 200, 1, 1))
    lattice = Lattice(500, 200)
    work = lattice, lattice.blocks(512)[0], view
    with device_rows(*work, painter_of(engine), mean=(9, 8, 7), seam=Seam(), **options) as rows:
        return list(rows), work


@pytest.mark.parametrize("options", [{}, {"sums": True, "squares": True}])
def test_no_stream_uses_what_it_has_not_waited_for(models, gpu, options):
    rows, work = painted(models / "unet", **options)
    assert CLOCKS.owner
    assert not CLOCKS.strays()
    expected = on_host(Engine(open_model(models / "unet"), batch_size=3), *work, Seam())
    assert np.abs(joined(rows, grey_rows).astype(int) - joined(expected, grey_rows)).max() <= 1


def test_a_thread_that_waits_for_the_device_leaves_its_core_to_others(models, gpu):
    painted(models / "identity")
    assert CLOCKS.waits
    assert all(CLOCKS.waits)


def test_a_stream_that_does_not_wait_is_found(models, gpu):
    gpu.setattr(Stream, "wait_event", lambda self, event: None)
    with pytest.raises(RaceError):
        painted(models / "identity")


def test_a_host_that_does_not_wait_is_found(models, gpu):
    gpu.setattr(Event, "synchronize", lambda self: None)
    with pytest.raises(RaceError, match="the host reads"):
        painted(models / "identity")


def test_memory_that_is_used_elsewhere_unsaid_is_found(models, gpu):
    gpu.setattr(Tensor, "record_stream", lambda self, stream: None)
    painted(models / "identity")
    assert CLOCKS.strays()


@pytest.mark.parametrize("name", ["Batches", "Blend", "_Path"])
def test_memory_that_is_made_on_another_stream_is_found(models, gpu, name):
    made, usual = getattr(blocks, name), CLOCKS.current

    def aside(*args, **options):
        with current(usual):
            return made(*args, **options)

    gpu.setattr(blocks, name, aside)
    with contextlib.suppress(RaceError):  # found at once, or at the end
        painted(models / "identity")
        assert CLOCKS.strays()
