"""Whole renders through the device's path, on a CPU: the same bytes as without it."""

from __future__ import annotations

import json
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch

from tests.conftest import noise, write_raster
from tests.render.test_block import ArrayView
from tilemapper.errors import ModelError
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render import blocks as blocks_module
from tilemapper.render.cuda.block import device_rows
from tilemapper.render.cuda.lanes import ABREAST, render_abreast
from tilemapper.render.cuda.painter import Painter
from tilemapper.render.engine import Engine
from tilemapper.render.plan import Plan
from tilemapper.render.render import render
from tilemapper.render.seam import Seam
from tilemapper.render.staging import staging_folder
from tilemapper.render.stream import stream
from tilemapper.render.verify import verify


@pytest.fixture
def through_device(monkeypatch):
    """Has CPU engines rendered as if they were on a GPU; counts them."""
    painters = {}

    def painter_of(engine):
        return painters.setdefault(id(engine), Painter(engine))

    def switch():
        monkeypatch.setattr(blocks_module, "painter_of", painter_of)
        return painters

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield switch
    torch.set_num_threads(before)


@pytest.fixture
def city(tmp_path):
    mask = noise(600, 700, bands=1)[0] > 1
    mask[200:550, 100:400] = False
    return write_raster(tmp_path / "city.tif", noise(600, 700), mask=mask)


@pytest.mark.parametrize("name", ["unet", "classes"])
def test_a_device_writes_the_same_file(city, models, tmp_path, through_device, name):
    options = {"block": 512, "uncertainty": tmp_path / "doubt.tif", "batch_size": 3}
    if name == "classes":
        options["classes"] = tmp_path / "classes.tif"
    results, files = [], []
    for path in ("cpu", "device"):
        if path == "device":
            painters = through_device()
        results.append(render(city, tmp_path / "map.tif", models / name, overwrite=True, **options))
        files.append([p.read_bytes() for p in sorted(tmp_path.glob("*.tif"))])
    assert len(painters) == 1
    assert files[0] == files[1]
    assert results[0].overlap_disagreement == results[1].overlap_disagreement
    assert results[0].tiles == results[1].tiles


def test_pixels_alone_come_down_when_no_layer_needs_more(city, models, tmp_path, through_device):
    render(city, tmp_path / "a.tif", models / "unet", block=512)
    through_device()
    render(city, tmp_path / "b.tif", models / "unet", block=512)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_stream_has_its_probabilities_on_a_device_too(city, models, through_device):
    model = models / "classes"

    def probabilities():
        return [block.probabilities for block in stream(city, model, probabilities=True)]

    expected = probabilities()
    through_device()
    assert all((a == b).all() for a, b in zip(expected, probabilities(), strict=True))


@pytest.mark.parametrize("calls", [0, 5])  # that fit
def test_a_map_says_with_which_batches_it_was_made_where_memory_ran_out(
    city, models, tmp_path, through_device, monkeypatch, calls
):
    """The plan fixes the batch, by whose shape a GPU's libraries choose how to compute."""
    through_device()
    monkeypatch.setattr(Plan, "batch_decides", True)  # as on a GPU
    paint = Engine.paint
    painted = []

    def tight(engine, tiles):
        painted.append(len(tiles))
        if len(tiles) > 2 and len(painted) > calls:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return paint(engine, tiles)

    monkeypatch.setattr(Engine, "paint", tight)
    target, model = tmp_path / "map.tif", models / "unet"
    engine = Engine(open_model(model), batch_size=4)
    with pytest.warns(RuntimeWarning) as said:
        if not calls:
            blocks_module.painter_of(engine).prepare()  # as on a GPU, before the first block
        result = render(
            city,
            target,
            model,
            block=512,
            batch_size=4,
            device="cpu",
            precision="fp32",
            engine=engine,
        )
    assert len(painted) > 6
    assert "of 4 block(s) were painted with fewer than 4 tiles a call" in str(said[-1].message)
    assert "--batch-size 2 paints all of them alike" in result.notices[-1]
    with rasterio.open(target) as dst:
        plan = json.loads(dst.tags()["TILEMAPPER_PLAN"])
    # Where no block had another, this is what renders them again.
    assert plan["batch_size"] == (4 if calls else 2)
    assert plan.get("batch_sizes") == ([2, 4] if calls else None)
    monkeypatch.undo()
    notices = verify(target, model=model, blocks=1).notices
    assert ["another batch" in notice for notice in notices] == [True] * bool(calls)


def test_an_unfinished_render_goes_on_from_the_blocks_that_stand(
    city, models, tmp_path, through_device
):
    through_device()
    target, model = tmp_path / "map.tif", models / "slow"

    def tick(tiles):
        if list(staging_folder(target).glob("journal")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(city, target, model, block=512, batch_size=1, tick=tick)
    assert not [thread for thread in threading.enumerate() if "block" in thread.name]
    result = render(city, target, model, block=512, batch_size=1)
    assert result.blocks_resumed >= 1
    render(city, tmp_path / "whole.tif", model, block=512)
    assert target.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_the_plan_says_the_batch_of_the_engine_that_is_open(city, models, tmp_path):
    """`verify` renders blocks again with it, and on a GPU another one may give other bytes."""
    engine = Engine(open_model(models / "identity"), device="cpu", batch_size=7)
    plans = []
    options = {"engine": engine, "device": "cpu", "on_plan": lambda plan, _: plans.append(plan)}
    render(city, tmp_path / "map.tif", models / "identity", **options)
    assert plans[0].batch_size == 7


def test_a_render_that_was_begun_with_another_batch_has_an_engine_of_its_own(models, monkeypatch):
    class OpenedError(Exception):
        pass

    def engine_of(plan, model):
        raise OpenedError(plan.batch_size)

    monkeypatch.setattr(blocks_module, "engine_of", engine_of)
    model = open_model(models / "identity")
    same = {"precision": "bf16", "tta": False, "compiled": False}
    engine = SimpleNamespace(model=model, device=torch.device("cuda", 0), batch_size=128, **same)
    work = (model, [Block(0, 0, 512, 512)], Path(), None, engine)
    plan = SimpleNamespace(device="cuda:0", model_digest=model.card.digest, batch_size=64, **same)
    with pytest.raises(OpenedError, match="64"):
        next(blocks_module.render_blocks(plan, *work))


class View:
    def __init__(self, made):
        self.users, self.closed = 0, False
        made.append(self)

    def close(self):
        assert not self.users
        self.closed = True


def blocks(count):
    return [Block(512 * index, 0, 512, 512) for index in range(count)]


def test_blocks_abreast_have_a_view_each_and_all_are_rendered():
    made, most, now, lock = [], [0], [0], threading.Lock()
    met = threading.Barrier(ABREAST)

    def one(block, view, count):
        with lock:
            view.users += 1
            now[0] += 1
            most[0] = max(most[0], now[0])
            assert view.users == 1
        met.wait(60)
        time.sleep(0.01)  # for one more than may
        count(2)
        with lock:
            view.users -= 1
            now[0] -= 1
        return block.name

    ticks = []
    done = list(render_abreast(one, blocks(12), open_view=lambda: View(made), tick=ticks.append))
    assert sorted(done) == sorted(block.name for block in blocks(12))
    assert sum(ticks) == 24
    assert len(made) == most[0] == ABREAST
    assert all(view.closed for view in made)


def test_a_block_that_fails_ends_the_others_and_closes_the_views():
    made, outlasted, started = [], [], threading.Event()

    def one(block, view, count):
        if block.row == 512:
            assert started.wait(60)
            raise OSError("torn")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            started.set()
            time.sleep(0.01)
            count(1)
        outlasted.append(block.name)
        return block.name

    with pytest.raises(OSError, match="torn"):
        list(render_abreast(one, blocks(6), open_view=lambda: View(made)))
    assert not outlasted
    assert all(view.closed for view in made)


def test_values_that_are_not_finite_fail_their_block_and_no_other(models):
    """Blocks share the generator, and an archive keeps it: one that fails must not fail others."""
    engine = Engine(open_model(models / "identity"), device="cpu", batch_size=2)
    engine._network = lambda x: torch.where(x < -0.999, torch.nan, x)  # of black pixels
    painter, lattice = Painter(engine), Lattice(1500, 200)
    block, sound = lattice.blocks(8192)[0], np.full((1500, 200, 3), 9, np.uint8)
    spoilt = sound.copy()
    spoilt[:100] = 0

    def rows_of(rgb):
        return device_rows(lattice, block, ArrayView(rgb), painter, mean=(9, 8, 7), seam=Seam())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a NaN becomes as a byte means nothing
        with pytest.raises(ModelError, match="not finite"), rows_of(spoilt) as rows:
            next(rows)
            with rows_of(sound) as others:
                assert len(list(others)) > 1
            list(rows)
        with rows_of(sound) as others:
            list(others)
