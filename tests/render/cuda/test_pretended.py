"""The device's path with a pretended device: what a GPU would refuse, without one."""

from __future__ import annotations

import contextlib
import gc
import weakref

import numpy as np
import pytest
import torch

from tests.conftest import noise
from tests.pretended import DEVICE, MixedError, Pretended
from tests.render.cuda.test_block import joined, masked, on_host
from tests.render.test_block import ArrayView
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Lattice
from tilemapper.render.block import class_rows, grey_rows
from tilemapper.render.cuda import block as blocks
from tilemapper.render.cuda import painter as painting
from tilemapper.render.cuda.block import device_rows
from tilemapper.render.cuda.painter import painter_of
from tilemapper.render.cuda.streams import Download
from tilemapper.render.engine import Engine
from tilemapper.render.seam import Seam

# Some versions of torch warn of the switches that are put back below.
pytestmark = pytest.mark.filterwarnings("ignore:Please use the new API settings")


class Streams:
    """One stream, as it were: every copy is there at once."""

    def __init__(self, device):
        self.device = device

    def computing(self):
        return contextlib.nullcontext()

    def upload(self, array):
        return torch.from_numpy(array).to(self.device)

    def download(self, tensor):
        return Download(tensor.cpu())

    def synchronize(self):
        pass


class Graph:
    """A recorded call that must not look at any value of the device."""

    def __init__(self, call, tiles, streams):
        self.call, self.recorded = weakref.WeakMethod(call), tiles.clone()

    def __call__(self, tiles):
        self.recorded.copy_(tiles)
        before = GPU.reads
        levels, finite = self.call()(self.recorded)
        assert before == GPU.reads
        return levels.clone(), finite.clone()


GPU = Pretended()


@pytest.fixture
def gpu(monkeypatch):
    """A pretended device in this thread, and nothing in others."""
    monkeypatch.setattr(painting, "Streams", Streams)
    monkeypatch.setattr(painting, "_Graph", Graph)
    monkeypatch.setattr(blocks, "staged", lambda items, **_: contextlib.nullcontext(iter(items)))
    for name in ("benchmark", "deterministic", "allow_tf32"):
        before = getattr(torch.backends.cudnn, name)
        monkeypatch.setattr(torch.backends.cudnn, name, before)  # set back at the end
    with GPU:
        yield GPU


@pytest.mark.parametrize("name", ["unet", "classes"])
def test_nothing_of_the_host_mixes_with_the_device(models, gpu, name):
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True
    engine = Engine(open_model(models / name), device=str(DEVICE), batch_size=2)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.allow_tf32
    view = ArrayView(noise(200, 400).transpose(1, 2, 0), masked(200, 400, 1, 1))
    lattice, final = Lattice(200, 400), class_rows if engine.is_palette else grey_rows
    colours = np.arange(9, dtype=np.int32).reshape(3, 3) * 20 if engine.is_palette else None
    painter, block, seam = painter_of(engine), lattice.blocks(512)[0], Seam(colours)
    options = {"sums": True, "squares": True} if name == "unet" else {}
    with device_rows(lattice, block, view, painter, mean=(9, 8, 7), seam=seam, **options) as rows:
        device = joined(list(rows), final)
    assert painter._graph is not None
    assert seam.count > 0
    expected = Engine(open_model(models / name), batch_size=2)
    host = joined(on_host(expected, lattice, block, view, Seam()), final)
    assert np.abs(host.astype(int) - device).max() <= 1


def test_of_a_block_beside_the_area_of_interest_nothing_is_read_nor_painted(models, gpu):
    class Unread(ArrayView):
        def read(self, **window):
            raise AssertionError(window)

    painter = painter_of(Engine(open_model(models / "unet"), device=str(DEVICE), batch_size=2))
    lattice = Lattice(200, 400)
    view = Unread(noise(200, 400).transpose(1, 2, 0), wanted=np.zeros((200, 400), bool))
    reads, painter.paint = gpu.reads, None
    block, seam = lattice.blocks(512)[0], Seam()
    with device_rows(lattice, block, view, painter, mean=(9, 8, 7), seam=seam) as rows:
        parts = list(rows)
    assert joined(parts, grey_rows).shape == (3, 200, 400)
    assert not joined(parts, lambda part: part.keep).any()
    assert gpu.reads == reads
    assert seam == Seam()


def test_an_engine_that_nobody_needs_any_more_takes_its_painter_along(models, gpu):
    # What torch loads at the first call keeps the frames from which it was loaded.
    painter_of(Engine(open_model(models / "identity"), device=str(DEVICE), batch_size=1))
    gc.collect()
    gc.disable()  # a device's memory is too dear to wait for it
    try:
        engine = Engine(open_model(models / "identity"), device=str(DEVICE), batch_size=1)
        gone = weakref.ref(engine), weakref.ref(painter_of(engine))
        del engine
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_a_graph_is_recorded_before_other_threads_use_the_device(models, gpu):
    engine = Engine(open_model(models / "identity"), device=str(DEVICE), batch_size=1)
    assert painter_of(engine)._graph is not None


def test_what_a_device_refuses_is_refused(gpu):
    there, here = torch.zeros(3, device=DEVICE), torch.ones(3)
    with pytest.raises(MixedError, match="add"):
        there + here
    with pytest.raises(MixedError, match="index_select"):
        there.index_select(0, torch.arange(2))
    with pytest.raises(MixedError, match="numpy"):
        there.numpy()
    assert (there + here.to(DEVICE)).device == DEVICE
    assert torch.equal((there[torch.arange(2)] * 2).cpu(), torch.zeros(2))
