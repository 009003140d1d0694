"""What a dry run counts when several workers share a raster."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from tests.conftest import noise, write_raster
from tilemapper.networks.model import open_model
from tilemapper.render import estimate as estimating
from tilemapper.render.cluster import surveying


def planned(device, *, workers, blocks):
    return SimpleNamespace(device=device, devices=device, workers=workers, blocks=blocks)


@pytest.mark.parametrize(("blocks", "busy"), [(1, 1), (3, 3), (9, 4)])
def test_gpus_that_get_no_block_add_no_speed(monkeypatch, blocks, busy):
    monkeypatch.setattr(estimating, "tiles_a_second", lambda plan, model: 10.0)
    monkeypatch.setattr(estimating, "named_gpus", lambda devices: ["0", "1", "2", "3"])
    plan = planned("cuda", workers=8, blocks=[None] * blocks)
    assert estimating._speed(plan, None, None, insecure=False) == 10.0 * busy


@pytest.mark.parametrize(("blocks", "busy"), [(1, 1), (3, 3), (9, 8)])
def test_workers_of_a_cluster_that_get_no_block_add_no_speed(monkeypatch, blocks, busy):
    answer = SimpleNamespace(result=lambda timeout: 10.0)
    client = SimpleNamespace(submit=lambda *arguments, **options: answer)
    monkeypatch.setattr(surveying, "connected", lambda address: contextlib.nullcontext(client))
    monkeypatch.setattr(surveying, "candidates", lambda client, gpu: {"a": False})
    monkeypatch.setattr(surveying, "model_files", lambda model: {})
    monkeypatch.setattr(surveying, "check_versions", lambda *arguments: None)
    plan = planned("cpu", workers=8, blocks=[None] * blocks)
    assert surveying.cluster_speed("tcp://127.0.0.1:1", plan, None) == 10.0 * busy


def test_memory_is_said_to_be_that_of_each_worker_where_there_are_several(models, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(300, 300))
    model = open_model(models / "identity")
    for workers, words in ((1, "MiB beyond"), (2, "MiB a worker beyond")):
        cost = estimating.estimate(city, tmp_path / "map.tif", model, workers=workers, device="cpu")
        assert cost.workers == workers
        assert words in "".join(cost.lines())
