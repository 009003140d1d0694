"""A training step never waits for the device that it runs on.

Run on torch's meta device, whose tensors have no numbers: whatever would look at one, and so make
the host wait for a GPU, is an error there; so is mixing tensors of the host with those of the
device.
"""

from __future__ import annotations

import pytest
import torch

from tilemapper.training import cyclegan, pix2pix
from tilemapper.training.assembly import Average
from tilemapper.training.feed import Batch
from tilemapper.training.jobfile import load_job
from tilemapper.training.parallel import Processes

META = torch.device("meta")
SMALL = {
    "fast": {"networks.generator_arguments": "{width=4, depth=4}", "losses.gan": "none"},
    "classic": {"networks.generator_arguments": "{width=4, depth=4}"},
    "best": {"networks.generator_arguments": "{width=4, stride=16}", "trainer.minutes": "0"},
    "cyclegan": {"networks.generator_arguments": "{width=4, blocks=1}", "losses.pool": "2"},
}


@pytest.mark.parametrize("preset", SMALL)
def test_a_step_looks_at_no_number_of_the_device(monkeypatch, preset):
    overrides = {**SMALL[preset], "augment.crop": "64", "losses.gan_from": "0.0"}
    job = load_job(preset=preset, overrides={**overrides, "trainer.precision": "fp32"})
    kind = cyclegan.CycleGan if job.trainer.task == "cyclegan" else pix2pix.Pix2Pix
    for room in (pix2pix, cyclegan):
        monkeypatch.setattr(room, "place", lambda network, *_: network.to(META).train())
    # torch knows no autocast for this device, and float32 needs none.
    monkeypatch.setattr(kind, "_autocast", lambda _: torch.autocast("cpu", enabled=False))
    task = kind(job, META, Processes())
    image = torch.zeros(2, 3, 64, 64, device=META)
    target = image
    if job.networks.head == "palette":
        task.class_weights = torch.ones(len(job.palette), device=META)
        target = torch.zeros(2, 64, 64, dtype=torch.uint8, device=META)
    average = Average(task.generator, 0.9)
    for step in range(2):
        terms = task.step(Batch(image, target, torch.full((2, 8), 0.5)), step, 0.9)
        average.update(task.generator, step)
    assert terms and all(value.device == META for value in terms.values())
