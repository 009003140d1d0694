"""The engine: shapes, quantisation, memory, devices, precision."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import noise
from tests.render.test_block import ArrayView
from tilemapper.errors import DeviceError, ModelError, OptionError
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import Model, ModelCard, open_model, save_model
from tilemapper.raster.lattice import Lattice
from tilemapper.render.again import engine_again
from tilemapper.render.array import render_array
from tilemapper.render.block import predict_rows
from tilemapper.render.devices import (
    auto_batch,
    choose_device,
    choose_precision,
    default_batch,
    tile_bytes,
)
from tilemapper.render.engine import SAMPLE, Engine, open_engine
from tilemapper.render.strips import read_tile_rows
from tilemapper.training.assembly import use_bf16


def tiles(count: int, seed: int = 0) -> np.ndarray:
    image = noise(256, 256 * count, seed).transpose(1, 2, 0)
    return np.ascontiguousarray(np.stack(np.split(image, count, axis=1)))


def test_identity_is_exact_in_eighths_of_a_grey_level(models):
    engine = Engine(open_model(models / "identity"), batch_size=3)
    batch = tiles(3)
    prediction = engine.predict(batch)
    assert prediction.dtype == np.int16
    assert np.array_equal(prediction, batch.transpose(0, 3, 1, 2).astype(np.int16) * 8)


def test_class_shares_sum_to_one(models):
    engine = Engine(open_model(models / "classes"), batch_size=2)
    total = engine.predict(tiles(2)).sum(axis=1)
    assert np.abs(total - 2040).max() <= 2  # each of three shares is rounded once


@pytest.fixture
def one_thread():
    """What a lane has: on two threads oneDNN splits sums, and fp32 bits depend on the batch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tile_has_the_same_bits_in_any_batch_and_place(models, precision, one_thread):
    batch = tiles(5)
    single = Engine(open_model(models / "unet"), precision=precision, batch_size=1)
    alone = [single.predict(batch[place : place + 1])[0] for place in range(5)]
    together = Engine(open_model(models / "unet"), precision=precision, batch_size=5)
    assert np.array_equal(together.predict(batch), alone)
    assert np.array_equal(together.predict(batch[::-1].copy())[::-1], alone)


def test_any_number_of_lanes_gives_the_same_bits(models):
    image = np.ascontiguousarray(noise(500, 600).transpose(1, 2, 0))
    results = []
    for lanes in (1, 2, 3):
        engine = Engine(open_model(models / "unet"), batch_size=2)
        engine.lanes = lanes
        engine.enter_lane = lambda: torch.set_num_threads(1)  # also where there is one lane
        results.append(render_array(image, engine).rgb)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_bf16_stays_near_fp32(models):
    batch = tiles(2)
    exact, fast = (
        Engine(open_model(models / "unet"), precision=precision).predict(batch)
        for precision in ("fp32", "bf16")
    )
    assert np.abs(exact.astype(int) - fast).mean() < 8 * 2


class Greedy(torch.nn.Module):
    """A network that fits ``room`` tiles into memory, and no more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.sizes = room, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x


def test_a_large_batch_costs_nothing_before_it_is_called(models):
    """Its weights are laid out for a few of its tiles: memory for all may not be there."""
    engine = Engine(open_model(models / "unet"), batch_size=10**6)
    assert engine._some_batch().shape == (SAMPLE, 3, 256, 256)


def test_out_of_memory_halves_the_call_and_changes_no_byte(models):
    engine = Engine(open_model(models / "identity"), batch_size=8)
    expected = engine.predict(tiles(8))
    greedy = Greedy(room=2)
    engine._network = greedy
    with pytest.warns(RuntimeWarning, match=r"out of memory at \d tiles, going on with \d"):
        assert np.array_equal(engine.predict(tiles(8)), expected)
    assert max(greedy.sizes[2:]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.predict(tiles(8))  # it has learnt: no second warning


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_cpu_a_halved_call_comes_to_the_same_bits(models, precision, one_thread):
    """So the plan may leave the batch out there, and only on a GPU is it told of."""
    engine = Engine(open_model(models / "unet"), precision=precision, batch_size=7)
    expected = engine.predict(tiles(7))
    whole, room = engine._network, Greedy(room=3)
    engine._network = lambda batch: whole(room(batch))
    with pytest.warns(RuntimeWarning, match="out of memory at 7 tiles, going on with 3"):
        assert np.array_equal(engine.predict(tiles(7)), expected)
    assert room.sizes == [7, 3, 3, 1]
    assert (engine.batch_size, engine.fits) == (7, 3)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_call_is_halved_whichever_library_lacks_memory(models, said):
    engine = Engine(open_model(models / "identity"), batch_size=2)

    def tight(batch):
        if len(batch) > 1:
            raise RuntimeError(said)
        return batch

    engine._network = tight
    with pytest.warns(RuntimeWarning, match="out of memory at 2 tiles, going on with 1"):
        assert engine.predict(tiles(2)).shape == (2, 3, 256, 256)


def test_one_tile_that_does_not_fit_is_one_clear_line(models):
    engine = Engine(open_model(models / "identity"), batch_size=1)
    engine._network = Greedy(room=0)
    with pytest.raises(DeviceError, match="not enough memory for one tile of model identity"):
        engine.predict(tiles(1))


def test_a_tile_that_no_algorithm_can_compute_may_be_for_want_of_code(models):
    engine = Engine(open_model(models / "identity"), batch_size=1)

    def none_known(_batch):
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    engine._network = none_known
    with pytest.raises(
        DeviceError, match=r"cpu: cuDNN finds no algorithm .* a build of torch that"
    ):
        engine.predict(tiles(1))


def test_values_that_are_not_finite_are_never_painted(models):
    engine = Engine(open_model(models / "identity"), batch_size=1)

    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float("nan")

    engine._network = Broken()
    with pytest.raises(ModelError, match="not finite; use --precision fp32"):
        engine.predict(tiles(1))


def test_an_image_in_memory_renders_like_a_raster(models):
    image = np.ascontiguousarray(noise(300, 410).transpose(1, 2, 0))
    engine = open_engine(open_model(models / "identity"), device="cpu")
    assert np.array_equal(render_array(image, engine).rgb, image)
    painted = render_array(image, open_model(models / "classes"), device="cpu")
    assert painted.classes is not None
    assert np.array_equal(painted.classes, image.argmax(axis=2))
    assert painted.expected is not None
    assert painted.expected.shape == image.shape


@pytest.fixture
def make_model(tmp_path):
    """Saves a small generator with what its card is to say."""

    def make(architecture, arguments, **card):
        said = ModelCard(name="m", architecture=architecture, arguments=arguments, **card)
        return save_model(tmp_path / "m", said, build_generator(architecture, arguments, 3), "")

    return make


@pytest.mark.parametrize("tile", [128, 384])
def test_an_image_in_memory_is_cut_into_the_tiles_that_the_model_takes(make_model, tile):
    model = make_model("unet", {"width": 1, "depth": 7}, tile=tile)
    engine = Engine(model, batch_size=2)
    shapes, predict = set(), engine.predict

    def noted(batch):
        shapes.add(batch.shape)
        return predict(batch)

    engine.predict = noted
    image = np.ascontiguousarray(noise(500, 450).transpose(1, 2, 0))
    assert render_array(image, engine).rgb.shape == image.shape
    assert shapes == {(2, tile, tile, 3)}


def test_a_model_of_other_bands_than_red_green_and_blue_is_refused(make_model):
    model = make_model("unet", {"width": 1, "depth": 2, "bands": 4}, bands=4)
    with pytest.raises(ModelError, match="m: the generator takes 4 band"):
        Engine(model)


def test_a_model_whose_tiles_cannot_lie_in_one_phase_is_refused(make_model):
    model = make_model("resnet", {"width": 1, "blocks": 1}, tile=300)
    with pytest.raises(ModelError, match="its tiles are 300 px, a multiple of 32"):
        Engine(model)


def test_devices_that_are_not_there_are_refused():
    assert choose_device("cpu") == "cpu"
    for wrong in ("npu", "cpu:0", "cuda:", "cuda:x", "cuda:0,", "cuda:1,1", "cuda:-1"):
        with pytest.raises(OptionError, match=f"device '{wrong}': unknown"):
            choose_device(wrong)
    with pytest.raises(DeviceError, match=r"CUDA device\(s\) found; use --device cpu"):
        choose_device("cuda:99")


def test_of_a_list_of_devices_all_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [choose_device(d) for d in ("cuda", "cuda:2", "cuda:2,0", "auto")] == [
        "cuda:0",
        "cuda:2",
        "cuda:2",
        "cuda:0",
    ]
    with pytest.raises(DeviceError, match=r"device cuda:0,3: 3 CUDA device\(s\) found"):
        choose_device("cuda:0,3")


@pytest.mark.parametrize("free_gib", [0.001, 0.5, 2, 140])
def test_a_batch_on_a_gpu_has_room_in_its_free_memory(models, monkeypatch, free_gib):
    model = open_model(models / "unet")
    wide = model.card.model_copy(update={"arguments": {"width": 64}})
    model = Model(wide, Path("/the/weights/are/elsewhere"))
    free = int(free_gib * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    batch, tile = auto_batch("cuda:0", model, "bf16"), tile_bytes(model, "bf16")
    assert batch == {0.001: 1, 140: 128}.get(free_gib, batch)
    assert batch == 1 or batch * tile <= free / 4
    assert batch == 128 or 2 * batch * tile > free / 4
    assert tile_bytes(model, "fp32") > 1.5 * tile
    # What an earlier render left with torch is free for the next one.
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: free // 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: free // 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 5 // 8, 2 * free))
    assert auto_batch("cuda:0", model, "bf16") == batch


def test_a_batch_on_a_cpu_does_not_depend_on_memory(models):
    assert auto_batch("cpu", open_model(models / "unet"), "fp32") == default_batch("cpu")


@pytest.mark.parametrize(("gains", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_what_the_processor_gains_by(models, monkeypatch, gains, precision):
    monkeypatch.setattr("tilemapper.render.devices.gains_by_bf16", lambda: gains)
    assert choose_precision("auto", "cpu", open_model(models / "unet")) == precision
    monkeypatch.setattr("tilemapper.training.assembly.gains_by_bf16", lambda: gains)
    assert use_bf16("auto", torch.device("cpu")) is gains


def test_stand_ins_stay_exact_under_auto_precision(models):
    assert choose_precision("auto", "cpu", open_model(models / "identity")) == "fp32"


def test_a_compiled_generator_that_differs_is_refused(models, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_kw: lambda x: network(x) + 1)
    with pytest.raises(DeviceError, match="the compiled generator differs"):
        Engine(open_model(models / "unet"), compiled=True)


def test_a_compiler_that_fails_is_one_clear_line(models, monkeypatch):
    def broken(_network, **_kw):
        def call(_x):
            raise RuntimeError("no C++ compiler found\nlong trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(DeviceError, match=r"torch.compile failed \(no C\+\+ compiler found\)"):
        Engine(open_model(models / "unet"), compiled=True)


def test_a_compiled_generator_runs_in_lanes_of_one_thread_from_the_first_call_on(
    models, monkeypatch
):
    """On two threads fp32 bits depend on the batch; for another number torch compiles again."""
    threads = set()

    def compile_(network, **_options):
        def compiled(batch):
            threads.add(torch.get_num_threads())
            return network(batch)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        engine = Engine(open_model(models / "unet"), batch_size=2, compiled=True)
        assert torch.get_num_threads() == engine.lanes == 3
        view, lattice = ArrayView(noise(400, 500).transpose(1, 2, 0)), Lattice(400, 500)
        rows = read_tile_rows(view, lattice, lattice.blocks(512)[0], (0, 0, 0))
        assert len(list(predict_rows(rows, engine))) == 3
    finally:
        torch.set_num_threads(before)
    assert threads == {1}


def test_a_generator_is_compiled_for_tiles_as_they_come(models, monkeypatch):
    """For others torch would compile it again, at the first of them."""
    given = []

    def compile_(network, **_options):
        def call(x):
            given.append((x.is_inference(), x.dtype, x.stride(), x.requires_grad))
            return network(x)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    Engine(open_model(models / "unet"), batch_size=2, compiled=True).predict(tiles(2))
    first, later = given
    assert first == later


def test_a_map_of_a_gpu_is_verified_with_the_batch_it_was_made_with(models):
    plan = {"device": "cpu", "precision": "fp32", "tile": 256}
    model = open_model(models / "identity")
    tags = {"TILEMAPPER_MODEL_SHA256": model.card.digest}
    for batch, wanted in (({"batch_size": 3}, 3), ({}, default_batch("cpu"))):
        engine = engine_again("map.tif", tags, plan | batch, model, "auto")
        assert engine.batch_size == wanted
