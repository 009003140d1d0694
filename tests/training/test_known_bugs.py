"""What published trainers of pix2pix get wrong and no other test here rules out."""

from __future__ import annotations

import numpy as np
import torch

from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.training.augment import random_state
from tilemapper.training.dataset import Dataset
from tilemapper.training.feed import Batch
from tilemapper.training.jobfile import load_job
from tilemapper.training.metrics import measure_maps
from tilemapper.training.parallel import Processes
from tilemapper.training.pix2pix import Pix2Pix

CPU = torch.device("cpu")


def test_validation_looks_at_every_held_out_pair_in_one_order(tmp_path):
    """Theirs is shuffled, and only its first batch is looked at."""
    data = write_pairs(tmp_path / "pairs", 30)
    job = load_job(
        overrides={**TINY, "trainer.steps": "1", "data.held_out": "0.4", "evaluate_pairs": "99"}
    )
    held = [Dataset(job, data, tmp_path, CPU).held_out(lambda x: x[:, :3]) for _ in range(2)]
    assert held[0] is not None and held[1] is not None
    assert len(held[0]) == 12
    assert np.array_equal(held[0].source, held[1].source)
    identity = torch.nn.Identity()
    figures = held[0].measure(identity, CPU)
    each = [
        measure_maps(s[None], t[None]) for s, t in zip(held[0].source, held[0].target, strict=True)
    ]
    assert len(each) > 8  # more than one batch of `generate`
    psnr = np.mean([one.mean()["psnr"] for one in each])
    assert abs(figures["psnr"] - psnr) < 1e-9


def test_the_generators_step_computes_no_gradient_of_the_discriminator():
    """Theirs computes D's gradients once more in G's step and throws them away."""
    job = load_job(overrides={**TINY, "trainer.steps": "1", "losses.gan": "hinge"})
    task = Pix2Pix(job, CPU, Processes(), torch.ones(len(job.palette)))
    assert task.discriminator is not None
    random = random_state(1)
    x = torch.rand(2, 3, 32, 32, generator=random) * 2 - 1
    y = torch.randint(len(job.palette), (2, 32, 32), generator=random).byte()
    task.step(Batch(x, y, torch.zeros(2, 8)), 0, 0.9)
    taught = [p.grad.clone() for p in task.discriminator.parameters() if p.grad is not None]
    assert taught
    asked = []
    usual = task.discriminator.forward

    def watched(images):
        asked.append([p.requires_grad for p in task.discriminator.parameters()])
        return usual(images)

    task.discriminator.forward = watched
    task.step(Batch(x, y, torch.zeros(2, 8)), 1, 0.9)
    assert all(all(flags) for flags in asked[:1])  # real and fake together, to learn from
    assert asked[1:] and not any(any(flags) for flags in asked[1:])  # the generator's turn


def test_tensorboard_reads_losses_metrics_and_images_of_a_resumed_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tilemapper.training.recording import Recorder

    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        recorder = Recorder(tmp_path, first_step=first)
        for step in steps:
            recorder.event("train", step, {"l1": step + first / 10})
        recorder.image("samples", steps[-1], np.zeros((4, 16, 3), np.uint8))
        recorder.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = {event.step: event.value for event in found.Scalars("train/l1")}
    assert list(values) == [1, 2, 3, 4]
    assert abs(values[3] - 3.2) < 1e-6  # of the second call: the first one's was taken back
    assert [image.width for image in found.Images("samples")] == [16]
