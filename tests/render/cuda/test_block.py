"""The device's path, run on a CPU: the same predictions give the same sums, bytes and seam."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import noise
from tests.render.test_block import ArrayView
from tilemapper.errors import DeviceError, ModelError
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import OVERLAPS, Lattice
from tilemapper.render.block import blend_rows, class_rows, grey_rows, predict_rows
from tilemapper.render.cuda import painter as painting
from tilemapper.render.cuda.band import DeviceBand
from tilemapper.render.cuda.block import device_rows
from tilemapper.render.cuda.painter import Painter
from tilemapper.render.engine import Engine
from tilemapper.render.levels import painted
from tilemapper.render.seam import Seam
from tilemapper.render.strips import read_tile_rows

TILE = 256


class Network(torch.nn.Module):
    """Adds a value that depends on the place within the tile, so that neighbours disagree."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        ramp = torch.arange(TILE) / TILE
        self.ramp = 0.3 * (ramp[None] * ramp[:, None])

    def forward(self, x):
        bands = [x[:, band % 3] * (1 + band / 5) for band in range(self.channels)]
        return torch.stack(bands, 1) * 0.7 + self.ramp


@dataclass
class Device:
    """An engine that serves both paths, and notes the shapes of its calls."""

    batch_size: int = 4
    channels: int = 3
    is_palette: bool = False
    fits: int = 1000
    lanes: int = 1
    _tta: bool = False
    _dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    shapes: set = field(default_factory=set)

    def __post_init__(self):
        self._inner = Network(self.channels)

    def enter_lane(self):
        pass

    def _network(self, batch):
        if len(batch) > self.fits:
            raise torch.OutOfMemoryError("made up")
        self.shapes.add(tuple(batch.shape))
        return self._inner(batch)

    def paint(self, pixels):
        how = {"dtype": self._dtype, "palette": self.is_palette, "tta": self._tta}
        return painted(self._network, pixels, **how)

    @torch.inference_mode()
    def predict(self, tiles):
        return self.paint(torch.from_numpy(tiles))[0].numpy()


def on_host(engine, lattice, block, view, seam, **options):
    rows = read_tile_rows(view, lattice, block, (9, 8, 7))
    return list(blend_rows(predict_rows(rows, engine), lattice, block, seam, **options))


def on_device(engine, lattice, block, view, seam, **options):
    painter = Painter(engine)
    with device_rows(lattice, block, view, painter, mean=(9, 8, 7), seam=seam, **options) as rows:
        return list(rows)


def joined(parts, what):
    return np.concatenate([what(part) for part in parts], axis=-2)


def masked(height, width, seed, share):
    """A source with holes: some pixels, and a rectangle."""
    chance = np.random.default_rng(seed)
    valid = chance.random((height, width)) >= share / 100
    if share:
        valid[height // 3 : height // 2, : width // 2] = False
    return valid


sizes = st.one_of(st.integers(1, 70), st.integers(200, 300), st.integers(400, 700))


@settings(deadline=None, max_examples=30)
@given(
    height=sizes,
    width=sizes,
    overlap=st.sampled_from(OVERLAPS),
    size=st.sampled_from([128, 512, 8192]),
    batch=st.integers(1, 9),
    holes=st.sampled_from([0, 0, 1]),
    palette=st.booleans(),
)
def test_the_same_predictions_give_the_same_bytes_and_seam(
    height, width, overlap, size, batch, holes, palette
):
    engine = Device(batch_size=batch, channels=5 if palette else 3, is_palette=palette)
    colours = np.arange(15, dtype=np.int32).reshape(5, 3) * 17 if palette else None
    view = ArrayView(noise(height, width).transpose(1, 2, 0), masked(height, width, 1, holes))
    lattice = Lattice(height, width, overlap)
    final = class_rows if palette else grey_rows
    for block in lattice.blocks(size)[:5]:
        seams = Seam(colours), Seam(colours)
        host = on_host(engine, lattice, block, view, seams[0])
        device = on_device(engine, lattice, block, view, seams[1])
        assert np.array_equal(joined(host, final), joined(device, final))
        assert np.array_equal(joined(host, lambda p: p.keep), joined(device, lambda p: p.keep))
        assert seams[0] == seams[1]
    assert engine.shapes == {(batch, 3, TILE, TILE)}


def test_an_area_of_interest_leaves_out_the_same_tiles():
    rgb, area = noise(700, 900).transpose(1, 2, 0), np.zeros((700, 900), bool)
    area[100:300, 50:400] = True
    lattice, engine, counts = Lattice(700, 900), Device(), []
    view, block = ArrayView(rgb, wanted=area), lattice.blocks(8192)[0]
    host = on_host(engine, lattice, block, view, Seam())
    device = on_device(engine, lattice, block, view, Seam(), tick=counts.append)
    assert np.array_equal(joined(host, grey_rows), joined(device, grey_rows))
    rows = read_tile_rows(view, lattice, block, (0, 0, 0))
    assert sum(counts) == sum(len(row.active) for row in rows) < lattice.tile_count


class Counting(ArrayView):
    """Counts the rows that are read."""

    rows = 0

    def read(self, *, height, **window):
        self.rows += height
        return super().read(height=height, **window)


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("palette", [False, True])
def test_of_blocks_beside_the_area_of_interest_nothing_is_read(palette, squares):
    rgb, area = noise(1500, 300).transpose(1, 2, 0), np.zeros((1500, 300), bool)
    area[700:720, 50:60] = True
    lattice, view = Lattice(1500, 300), Counting(rgb, wanted=area)
    engine = Device(channels=5 if palette else 3, is_palette=palette)
    what = [class_rows if palette else grey_rows, lambda p: p.keep]
    what += [lambda p: p.totals, lambda p: p.squares] if squares else []
    read = []
    for block in lattice.blocks(300):
        host = on_host(engine, lattice, block, ArrayView(rgb, wanted=area), Seam(), squares=squares)
        view.rows, counts, seam = 0, [], Seam()
        device = on_device(engine, lattice, block, view, seam, tick=counts.append, squares=squares)
        for one in what:
            assert np.array_equal(joined(host, one), joined(device, one))
        assert bool(view.rows) == bool(counts)
        read.append(bool(counts))
    assert read == [False, False, True, False, False]


def test_sums_and_squares_come_down_when_a_layer_wants_them():
    view, lattice = ArrayView(noise(500, 600).transpose(1, 2, 0)), Lattice(500, 600)
    engine, block = Device(), lattice.blocks(8192)[0]
    host = on_host(engine, lattice, block, view, Seam(), squares=True)
    device = on_device(engine, lattice, block, view, Seam(), squares=True)
    for what in (lambda part: part.totals, lambda part: part.squares):
        pair = [joined(parts, what) for parts in (host, device)]
        assert pair[0].dtype == pair[1].dtype
        assert np.array_equal(*pair)
    assert all(part.picture is None for part in device)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("name", ["identity", "constant", "unet", "classes"])
def test_a_model_gives_the_same_on_both_paths(models, name, tta):
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as a lane has it: else fp32 bits depend on the split of sums
    try:
        engine = Engine(open_model(models / name), batch_size=3, tta=tta)
        engine.lanes = 1
        rgb = noise(400, 500).transpose(1, 2, 0)
        view, lattice = ArrayView(rgb), Lattice(400, 500)
        block, final = lattice.blocks(8192)[0], class_rows if engine.is_palette else grey_rows
        host = joined(on_host(engine, lattice, block, view, Seam()), final)
        device = joined(on_device(engine, lattice, block, view, Seam()), final)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(host, device)
    if name == "identity":
        assert np.array_equal(device, rgb.transpose(2, 0, 1))


def test_a_call_that_does_not_fit_is_halved_and_gives_the_same():
    view, lattice = ArrayView(noise(500, 600).transpose(1, 2, 0)), Lattice(500, 600)
    block = lattice.blocks(8192)[0]
    whole = joined(on_device(Device(batch_size=7), lattice, block, view, Seam()), grey_rows)
    small = Device(batch_size=7, fits=2)
    small.model = None
    with pytest.warns(RuntimeWarning, match="out of memory") as said:
        halved = joined(on_device(small, lattice, block, view, Seam()), grey_rows)
    assert np.array_equal(whole, halved)
    assert small.shapes == {(1, 3, TILE, TILE)}  # 7, 3, 1
    assert len(said) == 2


class Graph:
    """A stand-in for a recorded call; ``off`` is what it errs by."""

    made: ClassVar[list[int]] = []
    off = 0

    def __init__(self, call, tiles, streams):
        self.call, self.shape = call, tiles.shape
        Graph.made.append(len(tiles))

    def __call__(self, tiles):
        assert tiles.shape == self.shape
        levels, finite = self.call(tiles)
        return levels + self.off, finite


def with_graphs(monkeypatch, engine, graph):
    """A painter that records graphs, as on CUDA."""
    monkeypatch.setattr(painting, "_Graph", graph)
    Graph.made = []
    painter = Painter(engine)
    painter._records = True
    return painter


def paint_all(painter, tiles):
    return torch.cat([painter.paint(part)[0] for part in tiles.split(painter.batch_size)])


@pytest.fixture
def tiles():
    pixels = np.random.default_rng(0).integers(0, 256, (12, TILE, TILE, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_a_graph_is_recorded_once_for_the_fixed_shape(monkeypatch, tiles):
    painter = with_graphs(monkeypatch, Device(), Graph)
    assert torch.equal(paint_all(painter, tiles), paint_all(Painter(Device()), tiles))
    assert Graph.made == [4]


@pytest.mark.parametrize("off", [1, None])
def test_without_a_graph_that_can_be_trusted_plain_calls_go_on(monkeypatch, tiles, off):
    class Wrong(Graph):
        def __init__(self, *args):
            super().__init__(*args)
            self.off = off
            if off is None:
                raise RuntimeError("operation not permitted when stream is capturing")

    painter = with_graphs(monkeypatch, Device(), Wrong)
    assert torch.equal(paint_all(painter, tiles), paint_all(Painter(Device()), tiles))
    assert painter._graph is None
    assert Graph.made == [4]  # not tried again


def test_memory_that_runs_out_under_a_graph_halves_it(monkeypatch, tiles, models):
    class Tight(Graph):
        def __call__(self, tiles):
            if len(Graph.made) == 1 and self.used:
                raise torch.OutOfMemoryError("made up")
            self.used = True
            return super().__call__(tiles)

        used = False

    painter = with_graphs(monkeypatch, Device(), Tight)
    painter.engine.model = open_model(models / "unet")
    painter.device = torch.device("cuda")  # only its kind is asked
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.warns(RuntimeWarning, match="out of memory at 4 tiles, going on with 2"):
        painted = paint_all(painter, tiles)
    assert torch.equal(painted, paint_all(Painter(Device()), tiles))
    assert Graph.made == [4, 2]


def test_a_device_too_small_for_one_tile_is_one_line(models):
    engine = Device(batch_size=1, fits=0)
    engine.model = open_model(models / "unet")
    view, lattice = ArrayView(noise(100, 100).transpose(1, 2, 0)), Lattice(100, 100)
    with pytest.raises(DeviceError, match="not enough memory for one tile"):
        on_device(engine, lattice, lattice.blocks(8192)[0], view, Seam())


def test_a_device_too_small_for_the_sums_of_a_block_is_one_line(monkeypatch):
    view, lattice = ArrayView(noise(500, 100).transpose(1, 2, 0)), Lattice(500, 100)
    block, add = lattice.blocks(8192)[0], DeviceBand.add

    def tight(self, tiles, index):
        if index > 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        add(self, tiles, index)

    monkeypatch.setattr(DeviceBand, "add", tight)
    with pytest.raises(DeviceError, match=r"memory for a block of 100 px; .* smaller --block"):
        on_device(Device(), lattice, block, view, Seam())


def test_values_that_are_not_finite_end_the_block(models):
    engine = Device()
    engine.model = open_model(models / "unet")
    engine._network = lambda batch: batch * float("nan")
    view, lattice = ArrayView(noise(100, 100).transpose(1, 2, 0)), Lattice(100, 100)
    with warnings.catch_warnings(), pytest.raises(ModelError, match="not finite"):
        warnings.simplefilter("ignore")  # what a NaN becomes as a byte means nothing
        on_device(engine, lattice, lattice.blocks(8192)[0], view, Seam())


def test_an_error_of_the_source_comes_out_and_no_thread_stays(models):
    import threading

    class Torn(ArrayView):
        def read(self, *, row, **window):
            if row > 100:
                raise OSError("torn")
            return super().read(row=row, **window)

    view, lattice = Torn(noise(900, 100).transpose(1, 2, 0)), Lattice(900, 100)
    before = set(threading.enumerate())  # of other tests, which may end meanwhile
    with pytest.raises(OSError, match="torn"):
        on_device(Device(), lattice, lattice.blocks(8192)[0], view, Seam())
    assert set(threading.enumerate()) <= before
