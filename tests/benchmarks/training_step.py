"""Time of a whole training step against forward and backward of the bare networks.

    python tests/benchmarks/training_step.py --preset fast
    python tests/benchmarks/training_step.py --preset classic --device cuda --batch 16

A whole step is what `tilemapper train` does: batch from uint8, augmentation, losses, both
optimisers, average, watching the losses. Bare is: the generator and, where the preset has one, the
discriminator on real and fake and again for the generator, each with its backward pass, on tensors
that are there and from a gradient that is there. Both in this one run and in turn, after a warm-up;
medians. Pixels are noise. On a CPU one thread, and the seconds are the processor's: other programs
do not count.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tilemapper.memory import kept_memory
from tilemapper.training.assembly import choose_device
from tilemapper.training.checkpoint import Checkpoints
from tilemapper.training.classes import ClassColours
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Feed, Group
from tilemapper.training.jobfile import load_job
from tilemapper.training.parallel import Processes
from tilemapper.training.pix2pix import Pix2Pix
from tilemapper.training.pixels import Pixels
from tilemapper.training.trainer import Trainer

IMAGES, SIDE = 64, 600


def make_trainer(job: TrainingJob, device: torch.device, folder: Path) -> Trainer:
    """A trainer on noise, its pixels on the device."""
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.integers(0, 255, (IMAGES * SIDE * SIDE, 3), dtype=np.uint8))
    at = torch.arange(IMAGES, device=device)
    sides = torch.full_like(at, SIDE)
    target = noise
    if job.networks.head == "palette":
        target = ClassColours(job.palette, torch.device("cpu")).mark(noise)
    pixels = Pixels(noise.to(device), target.to(device), at * SIDE * SIDE, sides, sides, SIDE)
    feed = Feed(
        pixels, [Group(0, IMAGES, 1.0)], job.augment,
        batch=job.trainer.batch, seed=0, device=device,
    )  # fmt: skip
    task = Pix2Pix(job, device, Processes())
    if task.colours is not None:
        task.class_weights = torch.ones(len(job.palette), device=device)
    return Trainer(
        job, task, feed, steps=10**9, device=device, processes=Processes(),
        checkpoints=Checkpoints(folder, 1),
    )  # fmt: skip


def bare_step(trainer: Trainer, source: torch.Tensor, gradient: torch.Tensor) -> None:
    """Forward and backward of the networks, and nothing else: no loss, no sum of old gradients."""
    task = trainer.task
    assert isinstance(task, Pix2Pix)
    for module in task.modules.values():
        module.zero_grad(set_to_none=True)
    with task._autocast():
        output = task.generator(source)
        ends, gradients = [output], [gradient]
        if task.discriminator is not None:
            fake = output[:, :3].float()
            task.discriminator.requires_grad_(True)
            for image in (source, fake.detach()):
                verdict = task.discriminator(torch.cat([source, image], 1))
                verdict[0].logits.float().mean().backward()
            task.discriminator.requires_grad_(False)
            verdict = task.discriminator(torch.cat([source, fake], 1))
            ends.append(verdict[0].logits.float().mean())
            gradients.append(torch.ones(()))
    torch.autograd.backward(ends, gradients)


def timed(call, device: torch.device) -> float:
    """Seconds of one call, the device's work included; of the processor's own time on a CPU.

    Processor time does not count what other programs of the machine take; with one thread and
    nothing else in this process it is the time of the call on a machine of its own.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="fast", choices=["classic", "fast", "best"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=8)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    job = load_job(
        preset=arguments.preset, overrides={"batch": str(arguments.batch), "losses.gan_from": "0.0"}
    )
    with tempfile.TemporaryDirectory() as folder, kept_memory():
        trainer = make_trainer(job, device, Path(folder))
        source = trainer.feed.make(0).source
        with torch.no_grad(), trainer.task._autocast():
            gradient = torch.randn_like(trainer.task.generator(source))
        whole, bare = [], []
        for turn in range(arguments.repeat + 2):
            a = timed(lambda: trainer._one_step(0.5, lambda _: None), device)
            b = timed(lambda: bare_step(trainer, source, gradient), device)
            if turn >= 2:  # warm by now
                whole.append(a)
                bare.append(b)
        trainer.feed.close()
    ratio = statistics.median(a / b for a, b in zip(whole, bare, strict=True))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{datetime.date.today()}, {name}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, {arguments.repeat} repeats")  # fmt: skip
    print(f"| preset | batch | step ms | bare ms | ratio | spread | waiting |\n|{'---|' * 7}")
    print(
        f"| {arguments.preset} | {arguments.batch} | {1000 * statistics.median(whole):.0f} "
        f"| {1000 * statistics.median(bare):.0f} | {ratio:.3f} "
        f"| {min(whole) / min(bare):.3f} to {max(whole) / max(bare):.3f} "
        f"| {trainer.watch.rates()[1]:.2%} |"
    )


if __name__ == "__main__":
    main()
