"""From a run's job and pairs to its trainer: task, feed, and where the last checkpoint stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tilemapper.errors import JobError
from tilemapper.networks.pretrained import read_encoder
from tilemapper.training.assembly import model_to_start_from, start_from
from tilemapper.training.checkpoint import Checkpoints
from tilemapper.training.classes import class_weights
from tilemapper.training.config import TrainingJob
from tilemapper.training.cyclegan import CycleGan
from tilemapper.training.dataset import Dataset, job_legend
from tilemapper.training.feed import Feed
from tilemapper.training.metrics import figure_names
from tilemapper.training.parallel import Processes
from tilemapper.training.pix2pix import Pix2Pix
from tilemapper.training.runfolder import CHECKPOINTS_NAME
from tilemapper.training.trainer import Trainer

# Pixels looked at for the shares of the classes: enough for three digits of the rarest.
SHARE_SAMPLE = 4_000_000


def check_alone(job: TrainingJob, *, resume: bool) -> None:
    """Refuses what can be told without a pair: to read them takes minutes.

    Raises:
        ModelError, JobError: as `model_to_start_from` and `read_encoder`, and for a figure that
            there is not.
    """
    name, there = job.trainer.best_by, [*figure_names(job_legend(job)), "loss"]
    if name not in there:
        raise JobError(
            f"trainer.best_by = {name}: no such figure, one of {', '.join(there)} is needed; "
            "choose one with --set"
        )
    if not resume:  # a checkpoint has weights of its own
        model_to_start_from(job)
        if job.networks.encoder:
            read_encoder(Path(job.networks.encoder))


def make_trainer(
    job: TrainingJob,
    data: Dataset,
    folder: Path,
    device: torch.device,
    processes: Processes,
    *,
    steps: int,
    resume: bool,
    notice: Callable[[str], None],
) -> Trainer:
    """What trains in this process, taken up where the newest checkpoint stands with ``resume``.

    ``steps``: 0 where time is the length of the run. ``notice`` is told of damaged checkpoints.

    Raises:
        ModelError, JobError: as `start_from`.
        TrainingError: as `Trainer.load`.
        Stopped: as `Dataset`.
    """
    checkpoints = Checkpoints(folder / CHECKPOINTS_NAME, job.trainer.keep)
    if processes.rank == 0:
        checkpoints.tidy()
    state = checkpoints.newest(notice) if resume else None
    # A run that ended before its first checkpoint begins anew, so from the weights of
    # networks.init again.
    task = _make_task(job, data, device, processes)
    backward = task.backward if isinstance(task, CycleGan) else None
    before = start_from(task.generator, job, backward=backward) if state is None else ()
    trainer = Trainer(
        job,
        task,
        _make_feed(job, data, device, processes),
        steps=steps,
        device=device,
        processes=processes,
        checkpoints=checkpoints,
        held_out=data.held_out(task.paint) if processes.rank == 0 else None,
        digest=data.digest,
        learned_from=(*data.learned_digests, *before),
    )
    if state is not None:
        trainer.load(state)
    return trainer


def _make_task(
    job: TrainingJob, data: Dataset, device: torch.device, processes: Processes
) -> Pix2Pix | CycleGan:
    torch.manual_seed(job.trainer.seed)
    kind = CycleGan if job.trainer.task == "cyclegan" else Pix2Pix
    task = kind(job, device, processes)
    if isinstance(task, Pix2Pix) and task.colours is not None:
        marked = data.pixels.target
        shares = task.colours.shares(marked[:: max(1, len(marked) // SHARE_SAMPLE)].cpu())
        boost = torch.tensor([job.losses.class_boost.get(c.name, 1.0) for c in job.palette])
        task.class_weights = class_weights(shares, job.losses.class_power, boost).to(device)
    return task


def _make_feed(job: TrainingJob, data: Dataset, device: torch.device, processes: Processes) -> Feed:
    # What ends in classes is a map, whatever the direction.
    photographs = job.data.direction == "BtoA" and job.networks.head == "rgb"
    return Feed(
        data.pixels,
        data.groups,
        job.augment,
        batch=job.trainer.batch,
        seed=job.trainer.seed,
        device=device,
        unpaired=job.data.unpaired,
        neighbours=bool(job.losses.overlap_disagreement),
        maps="source" if photographs else "target",
        rank=processes.rank,
        world=processes.world,
    )
