"""From a trained generator to a model folder: exact statistics, the train/eval gap, the card."""

from __future__ import annotations

import copy
import datetime
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from tilemapper.networks.model import ModelCard, Tone, save_model
from tilemapper.training.calibration import calibrate_classes
from tilemapper.training.checkpoint import read_checkpoint
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Feed
from tilemapper.training.heldout import generate
from tilemapper.training.parallel import unsynchronised
from tilemapper.training.pix2pix import Pix2Pix
from tilemapper.training.split import Split
from tilemapper.training.trainer import Trainer

MODEL_NAME = "model"
TONE_SAMPLE = 1_000_000
# Held-out images whose outputs in train and eval mode are compared, as one batch.
GAP_IMAGES = 8


def export_model(
    trainer: Trainer, run: Path, split: Split, *, command: str
) -> tuple[dict[str, float], Path]:
    """Exports the best generator (the last one where none was judged) as ``RUN/model``.

    Returns its held-out figures, {} without held-out pairs, and the folder. Raises as
    `save_model` and `read_checkpoint`, and Stopped, with nothing written, where one is asked for.
    """
    job, device, check = trainer.job, trainer.device, trainer.limits.check
    generator = unsynchronised(copy.deepcopy(trainer.judged))
    best = None if trainer.is_best else trainer.checkpoints.best()
    step = trainer.step
    if best is not None:
        state = read_checkpoint(best)
        # What was judged then, whatever a resumed run averages now.
        generator.load_state_dict(state["average"] or state["modules"]["generator"])
        step = int(state["step"])
    refresh_statistics(generator, trainer.feed, job.trainer.precise_bn_batches, check=check)
    held_back = _calibrate(generator, trainer)
    held_out = trainer.held_out
    figures = held_out.measure(generator, device, check=check) if held_out else {}
    gap = train_eval_gap(generator, trainer) if held_out else None
    normed, split_digest = _norm(generator), trainer.digest
    card = ModelCard(
        name=job.name,
        architecture=job.networks.generator,
        arguments=job.networks.generator_arguments,
        head=job.networks.head,
        palette=job.palette if job.networks.head == "palette" else (),
        tile=job.augment.crop,
        direction=job.data.direction,
        gsd_m=job.data.gsd_m or None,
        norm=normed,
        licence=job.licence,
        origin=job.origin,
        recipe=_recipe(trainer, split, step) + _said(held_back),
        command=command,
        hardware=_hardware(device),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        train_eval_gap=gap,
        split_share=job.data.held_out,
        split_seed=job.data.split_seed,
        pairs_sha256=split_digest.pairs if split_digest else None,
        held_out_sha256=split_digest.held_out if split_digest else None,
        trained_sha256=tuple(trainer.learned_from),
        tone=_tone(trainer),
        metrics={name: round(value, 4) for name, value in figures.items()},
    )
    folder = run / MODEL_NAME
    save_model(folder, card, generator.cpu(), card_readme(card, len(held_out or ())))
    return figures, folder


def _calibrate(generator: nn.Module, trainer: Trainer) -> dict[str, float]:
    """What was taken off each class, see `calibrate_classes`; {} without a palette."""
    task, batches = trainer.task, trainer.job.trainer.calibration_batches
    if not isinstance(task, Pix2Pix) or task.colours is None or task.class_weights is None:
        return {}
    return calibrate_classes(
        generator,
        trainer.feed,
        task.colours,
        task.class_weights,
        batches,
        check=trainer.limits.check,
    )


def _said(held_back: dict[str, float]) -> str:
    classes = ", ".join(f"{name} {value:g}" for name, value in held_back.items())
    return f"; logits lowered after training: {classes}" if classes else ""


@torch.no_grad()
def refresh_statistics(
    generator: nn.Module, feed: Feed, batches: int, *, check: Callable[[], None] = lambda: None
) -> None:
    """Precise batch norm: running statistics as plain means over fresh training batches.

    An exponential average remembers older weights; after this the statistics are those of the
    weights that are exported. Nothing happens without batch norm. ``check`` is called before each
    batch, and may raise.
    """
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms or not batches:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    generator.train()
    for drop in generator.modules():
        if isinstance(drop, nn.Dropout):
            drop.eval()
    for batch in range(batches):
        check()
        generator(feed.make(batch).source)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.eval()


def train_eval_gap(generator: nn.Module, trainer: Trainer) -> float | None:
    """Mean difference in grey levels between the batch's own statistics and the frozen ones.

    None where a norm has one value alone, and so no statistics, as of one image of which the
    lowest level of a network leaves one pixel.
    """
    assert trainer.held_out is not None
    source = trainer.held_out.source[:GAP_IMAGES]
    frozen = generate(
        generator.eval(), source, trainer.held_out.paint, trainer.device, batch=GAP_IMAGES
    )
    own = copy.deepcopy(generator).train()
    for drop in own.modules():
        if isinstance(drop, nn.Dropout):
            drop.eval()
    try:
        varying = generate(own, source, trainer.held_out.paint, trainer.device, batch=GAP_IMAGES)
    except ValueError:  # so torch says it
        return None
    return round(float(np.abs(frozen.astype(np.float32) - varying).mean()), 3)


def card_readme(card: ModelCard, held_out: int) -> str:
    """The card as Markdown."""
    classes = [f"- {c.name}: {', '.join(map(str, c.colour))}" for c in card.palette]
    parts = [
        f"# {card.name}",
        f"A {card.architecture} generator ({card.head} head), {card.direction}, trained at "
        f"{card.gsd_m or 'unknown'} m a pixel.",
        f"Origin of the data: {card.origin or 'not stated'}",
        f"Licence and terms: {card.licence or 'not stated'}",
        f"## Training\n{card.recipe}\n\n    {card.command or 'tilemapper.train(...)'}\n\n"
        f"{card.hardware}, {card.date}.",
        _figures(card, held_out),
    ]
    if classes:
        parts.append("## Classes\n" + "\n".join(classes))
    return "\n\n".join(parts) + "\n"


def _figures(card: ModelCard, held_out: int) -> str:
    """What was measured, as Markdown."""
    if not held_out:
        return "## Figures\nNone: no pairs were held out."
    colour = ", most likely colour" if card.head == "palette" else ""
    rows = [f"| {name} | {value:.4g} |" for name, value in card.metrics.items()]
    gap = [
        "\nOutputs with a batch's own statistics differ from those with the frozen ones by "
        f"{card.train_eval_gap} grey levels on average."
    ]
    return "\n".join(
        [
            f"## Figures\nCentre crops of {held_out} held-out pairs{colour}.\n",
            "| figure | value |\n|---|---|",
            *rows,
            *(gap if card.train_eval_gap is not None else []),
        ]
    )


def _norm(generator: nn.Module) -> Literal["running", "instance"]:
    instance = any(isinstance(m, nn.InstanceNorm2d) for m in generator.modules())
    return "instance" if instance else "running"


def _recipe(trainer: Trainer, split: Split, step: int) -> str:
    job, minutes = trainer.job, trainer.trained_s / 60
    terms = ", ".join(_terms(trainer))
    return (
        f"{len(split.train)} training pairs, {_held_out(split, job)}; {_start(trainer)}"
        f"weights of step {step} of {trainer.step}, batch "
        f"{job.trainer.batch} x {trainer.processes.world}, {minutes:.1f} minutes; "
        f"{job.trainer.optimizer} {job.trainer.learning_rate:g} {job.trainer.schedule}; "
        f"losses: {terms}"
    )


def _held_out(split: Split, job: TrainingJob) -> str:
    """How many pairs were held out, and by what."""
    if not split.held_out:
        return "none held out"
    by = f"by connected component (share {job.data.held_out:g}, seed {job.data.split_seed})"
    return f"{len(split.held_out)} held out {'as a folder' if split.by_folder else by}"


def _start(trainer: Trainer) -> str:
    """Where the weights came from, if not from chance."""
    networks = trainer.job.networks
    if networks.encoder:
        return f"encoder started from {Path(networks.encoder).name}; "
    return f"started from the weights of {Path(networks.init).name}; " if networks.init else ""


def _terms(trainer: Trainer) -> list[str]:
    """The losses that took part, with their weights."""
    losses, cycle = trainer.job.losses, trainer.job.trainer.task == "cyclegan"
    adversarial = cycle or (losses.gan != "none" and losses.gan_from < 1)
    names = ["cycle", "identity"]
    if not cycle:
        names = ["l1", "gradient_l1", "cross_entropy", "jaccard", "overlap_disagreement"]
    if adversarial and not cycle:
        names.append("feature_matching")
    terms = [f"{name} {getattr(losses, name):g}" for name in names if getattr(losses, name)]
    if adversarial:
        terms.append(f"{losses.gan} {losses.gan_weight:g} from {losses.gan_from:g} of the run")
    return terms


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (
        f"{torch.get_num_threads()} CPU threads ({platform.machine()}), torch {torch.__version__}"
    )


def _tone(trainer: Trainer) -> Tone:
    """Mean and deviation of the training imagery's bands, from an even sample of its pixels."""
    pixels = trainer.feed.pixels.source
    sample = pixels[:: max(1, len(pixels) // TONE_SAMPLE)].cpu().double()
    deviation, mean = torch.std_mean(sample, dim=0)
    rounded = [tuple(round(v, 2) for v in values.tolist()) for values in (mean, deviation)]
    return Tone(mean=rounded[0], std=rounded[1])
