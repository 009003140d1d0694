"""Processes, devices, cores, block sizes: who gets what."""

from __future__ import annotations

import pytest

from tilemapper.errors import OptionError
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Lattice
from tilemapper.render import division
from tilemapper.render.division import (
    MANY,
    block_for,
    environments,
    threads_each,
    visible_gpus,
    worker_count,
)
from tilemapper.render.plan import DEFAULT_BLOCK
from tilemapper.render.planning import plan_render


@pytest.fixture
def gpus(monkeypatch):
    """Makes this machine one with so many GPUs."""

    def have(count, named=None, kinds=()):
        kinds = kinds or ["H100"] * count
        monkeypatch.setattr(division.torch.cuda, "get_device_name", kinds.__getitem__)
        monkeypatch.setattr(division.torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(division.torch.cuda, "device_count", lambda: count)
        if named is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)

    return have


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 0), (2, 2), (8, 8)])
def test_auto_is_one_process_for_each_of_several_gpus(gpus, count, expected):
    gpus(count)
    assert worker_count("auto") == worker_count(None) == expected
    assert worker_count("auto", "cuda") == expected
    assert worker_count("auto", "cpu") == worker_count("auto", "cuda:0") == 0


def test_auto_starts_no_processes_for_a_small_raster(gpus):
    gpus(8)
    assert worker_count("auto", tiles=MANY - 1) == 0
    assert worker_count(8, tiles=1) == 8


def test_one_worker_is_this_process(gpus):
    gpus(0)
    assert [worker_count(n, "cpu") for n in (1, "1", 2, "3")] == [0, 0, 2, 3]


@pytest.mark.parametrize("workers", ["many", 0, -1, "0", "1.5"])
def test_what_is_no_number_of_workers_is_refused(workers):
    with pytest.raises(OptionError, match="--workers"):
        worker_count(workers)


def test_a_list_of_devices_is_divided_among_as_many_workers(gpus):
    gpus(4, "GPU-a,GPU-b,GPU-c,GPU-d")
    assert worker_count("auto", "cuda:3,1", tiles=1) == 2
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, "cuda:3,1")] == ["GPU-d", "GPU-b"]
    # more workers than devices share them in turn
    assert worker_count(3, "cuda:3,1") == 3
    found = [e["CUDA_VISIBLE_DEVICES"] for e in environments(3, "cuda:3,1")]
    assert found == ["GPU-d", "GPU-b", "GPU-d"]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, "cuda:2")] == ["GPU-c"] * 2


@pytest.mark.parametrize(
    ("device", "first", "named", "workers"),
    [("cuda:2,0", "cuda:2", "cuda:2,0", 2), ("cuda:1", "cuda:1", "cuda:1", 0)],
)
def test_a_plan_names_its_devices(
    gpus, models, make_raster, tmp_path, monkeypatch, device, first, named, workers
):
    gpus(4)
    monkeypatch.setattr(division.torch.cuda, "mem_get_info", lambda device: (2**37, 2**37))
    plan = plan_render(
        make_raster(600, 2500), tmp_path / "map.tif", open_model(models / "identity"), device=device
    )
    assert (plan.device, plan.devices, plan.workers) == (first, named, workers)
    assert plan.batch_size == 128
    # which of them, how many and how large the batch: none of it decides the result's plan
    assert plan.deciding()["device"] == "cuda"
    assert plan.to_tag()["batch_size"] == 128  # for who renders a block of it again


@pytest.mark.parametrize("workers", [1, 2])
def test_fewer_workers_than_named_devices_are_refused(gpus, workers):
    gpus(4)
    with pytest.raises(OptionError, match="3 devices are named"):
        worker_count(workers, "cuda:0,1,2")


def test_one_numbered_device_needs_no_workers(gpus):
    gpus(4)
    assert worker_count("auto", "cuda:1") == worker_count(1, "cuda:1") == 0


def test_each_worker_sees_one_gpu_of_those_that_are_visible(gpus):
    gpus(3, "GPU-a, GPU-b,7")
    assert visible_gpus() == ["GPU-a", "GPU-b", "7"]
    found = environments(4, "cuda")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in found] == ["GPU-a", "GPU-b", "7", "GPU-a"]
    gpus(2)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, "cuda")] == ["0", "1"]


def test_a_list_of_gpus_ends_where_cuda_ends_it(gpus):
    """At the first name that is no device's: a worker that saw that one would see none."""
    gpus(2, "0,1,7,2")
    assert visible_gpus() == ["0", "1"]
    assert worker_count("auto", "cuda") == 2


def test_what_drives_a_screen_beside_the_large_gpus_is_left_to_it(gpus):
    gpus(4, kinds=["A100", "A100", "DGX Display", "A100"])
    assert worker_count("auto") == worker_count("auto", "cuda") == 3
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(4, "cuda")] == ["0", "1", "3", "0"]
    # who names it, gets it
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2, "cuda:2,0")] == ["2", "0"]


@pytest.mark.parametrize(("named", "precision"), [("cuda:0,2", "bf16"), ("cuda:0,1", "fp32")])
def test_of_a_list_of_gpus_all_must_compute_in_bf16(
    gpus, models, make_raster, tmp_path, monkeypatch, named, precision
):
    gpus(3)
    able = {0: (9, 0), 1: (7, 5), 2: (8, 0), "cuda:0": (9, 0)}
    monkeypatch.setattr(division.torch.cuda, "get_device_capability", able.__getitem__)
    monkeypatch.setattr(division.torch.cuda, "mem_get_info", lambda device: (2**37, 2**37))
    model = open_model(models / "unet")
    plan = plan_render(make_raster(300, 300), tmp_path / "map.tif", model, device=named)
    assert plan.precision == precision


@pytest.mark.parametrize(("count", "threads"), [(1, 16), (2, 8), (3, 5), (16, 1), (40, 1)])
def test_workers_on_a_cpu_share_its_cores(monkeypatch, count, threads):
    monkeypatch.setattr(division.os, "sched_getaffinity", lambda pid: range(16))
    assert threads_each(count) == threads
    found = environments(count, "cpu")
    assert [e["OMP_NUM_THREADS"] for e in found] == [str(threads)] * count


@pytest.mark.parametrize("size", [(5000, 4000), (8192, 8192), (12000, 30000), (100_000, 100_000)])
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_blocks_are_sized_so_that_the_slowest_worker_is_done_first(size, workers):
    block = block_for(*size, 64, workers)
    lattice = Lattice(*size, 64)
    slowest = division._slowest(lattice, block, workers)
    assert slowest <= division._slowest(lattice, DEFAULT_BLOCK, workers)
    # twice the fair share at most, where the raster has tiles enough for everyone
    assert slowest < 2.0 * lattice.tile_count / workers
    assert block % 512 == 0
    assert (block // 512).bit_count() == 1


def test_one_worker_needs_no_smaller_blocks():
    assert block_for(9000, 9000, 64, 0) == DEFAULT_BLOCK
    assert block_for(9000, 9000, 64, 1, 8192) == 8192


def test_a_large_raster_keeps_large_blocks():
    assert block_for(200_000, 200_000, 64, 8) == DEFAULT_BLOCK
    assert block_for(200_000, 200_000, 64, 8, 8192) == 8192


def test_blocks_are_sized_by_the_tiles_that_the_model_takes():
    with pytest.raises(OptionError, match="overlap 128: more than half of the tile of 128 px"):
        block_for(9000, 9000, 128, 4, tile=128)
    counted = []

    def slowest(lattice, size, workers):
        counted.append(lattice.tile)
        return division_slowest(lattice, size, workers)

    division_slowest = division._slowest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "_slowest", slowest)
        block_for(9000, 9000, 64, 4, tile=512)
    assert set(counted) == {512}
