"""What only a GPU shows of training: its precision, its fused steps, its pinned copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.training.synthetic_pairs import TINY, stopped_after, write_pairs
from tilemapper.training.run import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CLASSIC = {
    "networks.generator": "unet",
    "networks.generator_arguments": '{width=4, depth=4, norm="instance_affine"}',
    "losses.gan": '"bce"',
}
CYCLES = {
    "networks.generator": "resnet",
    "networks.generator_arguments": "{width=4, blocks=1}",
    "losses.gan": '"lsgan"',
    "losses.pool": "2",
}
SMALL = {"fast": {}, "best": {}, "classic": CLASSIC, "cyclegan": CYCLES}
COMMON = {
    **TINY,
    "data.resize": "0",
    "losses.gan_from": "0.3",
    "trainer.steps": "6",
    "trainer.epochs": "0",
    "trainer.minutes": "0",
    "trainer.precision": "auto",
    "trainer.calibration_batches": "1",
    "trainer.evaluate_every": "3",
}


@pytest.mark.parametrize("storage", ["device", "host"])
@pytest.mark.parametrize("preset", SMALL)
def test_a_run_stops_goes_on_and_leaves_a_model(tmp_path, preset, storage):
    pairs, run = write_pairs(tmp_path / "pairs", 8), tmp_path / "run"
    settings = {**COMMON, **SMALL[preset], "data.storage": f'"{storage}"'}
    first = train(pairs, run, preset=preset, settings=settings, device="cuda", **stopped_after(2))
    assert not first.finished
    result = train(pairs, run, resume=True, device="cuda")
    assert (result.step, result.finished) == (6, True)
    assert math.isfinite(result.figures["psnr"])


@pytest.mark.parametrize("then", ["cuda", "cpu"])
def test_a_run_goes_on_on_another_device(tmp_path, then):
    pairs, run = write_pairs(tmp_path / "pairs", 8), tmp_path / "run"
    settings = {**COMMON, "trainer.precision": "fp32"}
    devices = {"cuda": "cpu", "cpu": "cuda"}
    train(pairs, run, settings=settings, device=devices[then], **stopped_after(2))
    assert train(pairs, run, resume=True, device=then).finished


def test_a_gpu_learns_what_a_cpu_learns(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", 8)
    settings = {**COMMON, "trainer.precision": "fp32", "trainer.steps": "20"}
    figures = [
        train(pairs, tmp_path / device, settings=settings, device=device).figures["loss"]
        for device in ("cpu", "cuda")
    ]
    assert np.isclose(*figures, rtol=0.1)
