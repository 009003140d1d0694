"""What is left of a recording that fails, with torch's bookkeeping of them pretended."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tilemapper.render.cuda import painter as painting
from tilemapper.render.cuda.streams import Streams


class Books:
    """torch's allocator: which pools are recorded into, and how often each is used."""

    def __init__(self):
        self.underway, self.used = [], {}

    def handle(self):
        return 0, 1 + len(self.used)

    def end(self, index, pool):
        assert index == 0
        if pool not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove(pool)

    def release(self, index, pool):
        assert index == 0
        self.used[pool] -= 1
        assert self.used[pool] >= 0


@pytest.fixture
def books(monkeypatch):
    """Records as torch does: one that was invalidated ends without a word to the allocator."""
    books = Books()

    @contextlib.contextmanager
    def record(graph, pool, stream, capture_error_mode):
        books.underway.append(pool)
        books.used[pool] = 1
        try:
            yield
        except RuntimeError as error:
            if "not permitted" in str(error):
                raise RuntimeError("CUDA error: previous error during capture") from error
            books.end(0, pool)
            raise
        books.end(0, pool)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", books.handle)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", books.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", books.release, raising=False)
    monkeypatch.setattr(Streams, "new", lambda self: None)
    return books


class Tiles:
    """Of a device, as far as a recording asks."""

    device = torch.device("cuda", 0)

    def clone(self):
        return self


def record(said):
    def call(_tiles):
        if said:
            raise RuntimeError(said)
        return None, None

    return painting._Graph(call, Tiles(), Streams(torch.device("cpu")))


def test_torch_hears_that_a_recording_has_failed(books):
    """Else it keeps all memory that two streams have used: six bytes for each pixel of a raster."""
    with pytest.raises(RuntimeError, match="CUDA error"):
        record("operation not permitted when stream is capturing")
    assert books.underway == []
    assert books.used == {(0, 1): 0}


def test_a_recording_that_torch_has_ended_itself_is_not_ended_again(books):
    with pytest.raises(RuntimeError, match="out of memory"):
        record("CUDA out of memory")
    assert books.underway == []
    assert books.used == {(0, 1): 1}  # released with its graph


def test_a_recording_keeps_its_memory(books):
    record("")
    assert (books.underway, books.used) == ([], {(0, 1): 1})
