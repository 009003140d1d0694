"""Engines that stay open from scene to scene."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import rasterio

from tests.archive.world import write_scene
from tilemapper.archive import engines
from tilemapper.archive.rendering import Render
from tilemapper.archive.task import SceneTask
from tilemapper.archive.worker import gpu_of, render_scene
from tilemapper.errors import DeviceError, DeviceLostError
from tilemapper.networks.build import build_generator
from tilemapper.networks.card import ModelCard
from tilemapper.networks.model import open_model, save_model
from tilemapper.render.nannies import UnfitError


def test_scenes_that_come_at_once_share_one_engine(monkeypatch):
    """As on a GPU, where two are painted at a time: a second engine takes its memory once more."""
    made, prepared = [], []

    def slow(model, **_options):
        time.sleep(0.05)
        made.append(model)
        return SimpleNamespace()

    monkeypatch.setattr(engines, "model_of", lambda name, sha256: name)
    monkeypatch.setattr(engines, "engine_for", slow)
    monkeypatch.setattr(engines, "painter_of", prepared.append)
    options = dict.fromkeys(("device", "precision", "batch_size", "tta", "compiled"))
    task = SimpleNamespace(model="one that no other test has", model_sha256="", options=options)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engines._engine_for, [task] * 4))
    engines._engine.cache_clear()
    assert len(made) == 1
    assert all(engine is found[0] for engine in (*found, *prepared))


def test_a_worker_takes_the_model_that_the_run_began_with(tmp_path):
    """A cluster outlives models that are trained into one folder: it painted with the first."""

    folder = tmp_path / "model"

    def begun_with(value: int) -> SceneTask:
        shutil.rmtree(folder, ignore_errors=True)
        arguments = {"value": value}
        card = ModelCard(name="again", architecture="constant", arguments=arguments)
        generator = build_generator("constant", arguments, card.channels, card.head)
        save_model(folder, card, generator, "# again\n")
        digest = open_model(folder).card.digest
        return SceneTask("a", source, str(tmp_path / "map.tif"), str(folder), digest, options)

    source = str(write_scene(tmp_path / "a.tif", 0))
    options = Render(batch_size=1, device="cpu").options()
    for value in (200, 100):
        task = begun_with(value)
        assert engines.render_on_worker(task).line is None
        with rasterio.open(task.staged) as src:
            assert (src.read() == value).all()
            assert src.tags()["TILEMAPPER_MODEL_SHA256"] == task.model_sha256

    late = begun_with(200)
    begun_with(100)
    outcome = engines.render_on_worker(late)
    engines._engine.cache_clear()
    assert outcome.state == "failed"
    assert "is another model than the run began with" in str(outcome.line)
    # So it is in the client, from which a scene's blocks are spread.
    assert render_scene(late).line == outcome.line


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize("opens", [True, False])
def test_a_worker_whose_gpu_has_failed_ends_and_takes_no_more_scenes(monkeypatch, broken, opens):
    """Its scene goes to another: this one would fail all that are left, and faster than they."""
    ended = []

    def engine_for(task):
        if not opens:
            raise DeviceLostError("cuda:1: failed")
        return SimpleNamespace(device="cuda:1")

    failed = SimpleNamespace(state="failed")
    monkeypatch.setattr(engines, "_engine_for", engine_for)
    monkeypatch.setattr(engines, "render_scene", lambda *_: failed)
    # On a cluster of others a job may name one of several GPUs: the first one need not be ours.
    monkeypatch.setattr(engines, "is_broken", lambda device: broken and device == "cuda:1")
    monkeypatch.setattr(engines.os, "_exit", ended.append)
    task = SimpleNamespace(id="a", path="a.tif", part=None, options={"device": "cuda:1"})
    # Of a GPU that goes on working the scene fails; the run of all the others goes on.
    assert engines._render(task, None, lambda tiles: None).state == "failed"
    assert ended == [1] * broken


@pytest.mark.parametrize(
    ("device", "threads", "gone", "leaves"),
    [
        ("cuda:0", 1, True, True),
        ("cuda:0", 1, False, False),  # it has no room for the model, say
        ("cuda:0", None, True, False),  # of a cluster of others, which never had one
        ("cpu", 1, True, False),
    ],
)
def test_a_worker_of_our_own_whose_gpu_is_gone_leaves_its_scenes_to_others(
    monkeypatch, device, threads, gone, leaves
):
    """Started again it found none, and failed the scenes as they came."""

    def engine_for(task):
        raise DeviceError("device cuda:0: 0 CUDA device(s) found")

    monkeypatch.setattr(engines, "_engine_for", engine_for)
    monkeypatch.setattr(engines, "is_gone", lambda gpu: gone and gpu.startswith("cuda"))
    monkeypatch.setattr(engines.torch, "get_num_threads", lambda: threads)
    task = SimpleNamespace(id="a", path="a.tif", part=None, options={"device": device})
    if not leaves:
        assert engines._render(task, threads, lambda tiles: None).state == "failed"
        return
    with pytest.raises(UnfitError) as raised:
        engines._render(task, threads, lambda tiles: None)
    assert raised.value.why == "device cuda:0: 0 CUDA device(s) found"
    assert raised.value.pid == os.getpid()


@pytest.mark.parametrize("begun", [True, False])
def test_a_worker_stays_away_only_if_it_does_not_find_its_gpu_again(monkeypatch, begun):
    """No call to a GPU that has failed in this process succeeds: it is not gone for that."""
    ended = []

    def engine_for(task):
        raise DeviceLostError("cuda:0: failed (CUDA error: an illegal memory access)")

    monkeypatch.setattr(engines, "_engine_for", engine_for)
    monkeypatch.setattr(engines, "has_begun", lambda gpu: begun)
    for name in ("is_gone", "is_broken"):
        monkeypatch.setattr(engines, name, lambda gpu: True)
    monkeypatch.setattr(engines.os, "_exit", ended.append)
    monkeypatch.setattr(engines.torch, "get_num_threads", lambda: 1)
    task = SimpleNamespace(id="a", path="a.tif", part=None, options={"device": "cuda:0"})
    with contextlib.nullcontext() if begun else pytest.raises(UnfitError):
        engines._render(task, 1, lambda tiles: None)
    assert ended == [1] * begun


def test_a_worker_that_is_done_with_a_scene_asks_nothing_of_its_gpu(monkeypatch):
    monkeypatch.setattr(engines, "_engine_for", lambda task: None)
    monkeypatch.setattr(engines, "render_scene", lambda *_: SimpleNamespace(state="done"))
    monkeypatch.setattr(engines, "is_broken", None)
    assert engines._render(SimpleNamespace(part=None), None, len).state == "done"


def test_a_part_of_a_mosaic_asks_nothing_of_a_gpu(monkeypatch):
    """It is cut out without one; to wait for a GPU disturbs others that begin on it."""
    monkeypatch.setattr(engines, "render_scene", lambda *_: SimpleNamespace(state="skipped"))
    monkeypatch.setattr(engines, "is_broken", None)
    assert engines._render(SimpleNamespace(part=1), None, len).state == "skipped"


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        ("auto", "cuda"),
        ("cpu", "cuda"),
        ("cuda", "cuda"),
        ("cuda:1", "cuda:1"),
        ("cuda:2,3", "cuda:2"),
    ],
)
def test_the_gpu_of_a_scene_is_the_first_that_is_named(device, gpu):
    assert gpu_of(SimpleNamespace(options={"device": device})) == gpu
