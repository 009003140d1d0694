"""What the keys of a training job say together: what cannot be trained, or would have no effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tilemapper.errors import ModelError
from tilemapper.networks.arguments import PatchGANArguments, generator_arguments, parse

if TYPE_CHECKING:
    from tilemapper.training.config import TrainingJob

# Overlapping patches lie apart by whole parts of a patch, this many to its side (see `augment`).
EIGHTHS = 8
# A class and a mark share a byte, see `classes`.
MOST_CLASSES = 128
WITHOUT_WEIGHTS = ("identity", "constant")
# Side in pixels that a discriminator's last two convolutions need, each of which takes one.
LEAST_SIDE = 3
UNUSED_BY_CYCLEGAN = {
    "augment": (
        "gamma", "saturation", "brightness", "contrast", "cast", "noise", "blur", "jpeg_quality",
    ),
    "losses": (
        "l1", "gradient_l1", "overlap_disagreement", "feature_matching", "gan_from", "joint_batch",
        "lambda_gp", "class_power", "class_boost",
    ),
    "trainer": ("compile", "calibration_batches"),
}  # fmt: skip


def disagreement(job: TrainingJob) -> str:
    """The first contradiction between keys, in words; "" when there is none."""
    return next((fault for fault in _disagreements(job) if fault), "")


def _disagreements(job: TrainingJob) -> Iterator[str]:
    yield _of_classes(job)
    if job.data.unpaired and not _is_cyclegan(job):
        yield "data.unpaired needs trainer.task = cyclegan"
    shares = sum(extra.share for extra in job.data.extra)
    if shares >= 1:
        yield f"the shares of data.extra sum to {shares:g}, less than 1 is needed"
    lengths = [n for n in ("steps", "epochs", "minutes") if getattr(job.trainer, n)]
    if len(lengths) > 1:
        yield f"trainer.{lengths[0]} and trainer.{lengths[1]} are both set, set one to 0"
    yield _of_cyclegan(job) if _is_cyclegan(job) else _of_terms(job)
    yield _of_neighbours(job)
    yield _of_networks(job)


def _is_cyclegan(job: TrainingJob) -> bool:
    return job.trainer.task == "cyclegan"


def _of_classes(job: TrainingJob) -> str:
    palette_head = job.networks.head == "palette"
    if palette_head and len(job.palette) < 2:
        return "networks.head is palette, at least 2 [[palette]] classes are needed"
    if len(job.palette) > MOST_CLASSES:
        return f"{len(job.palette)} [[palette]] classes, at most {MOST_CLASSES} can be trained"
    if job.losses.cross_entropy and not palette_head:
        return "losses.cross_entropy needs networks.head = palette"
    if job.losses.jaccard and not palette_head:
        return "losses.jaccard needs networks.head = palette"
    if job.losses.class_boost and not palette_head:
        return "losses.class_boost needs networks.head = palette"
    names = [c.name for c in job.palette]
    strange = [name for name in job.losses.class_boost if name not in names]
    if strange:
        return f"losses.class_boost {strange[0]}: no such class, the palette has {', '.join(names)}"
    return ""


def _of_cyclegan(job: TrainingJob) -> str:
    if job.networks.head == "palette":
        return "trainer.task cyclegan translates back, so networks.head must be rgb"
    if job.losses.gan in ("none", "wgan-gp"):
        return f"losses.gan is {job.losses.gan}, trainer.task cyclegan needs bce, lsgan or hinge"
    for section, names in UNUSED_BY_CYCLEGAN.items():
        table = getattr(job, section)
        for name in names:
            value, default = getattr(table, name), type(table).model_fields[name].default
            if value and value != default:
                off = 0 if name == "l1" else default
                return (
                    f"{section}.{name} is {json.dumps(value)}, trainer.task cyclegan has no use "
                    f"for it, set it to {json.dumps(off)}"
                )
    if not (job.losses.gan_weight or job.losses.cycle or job.losses.identity):
        return "no loss is left, set losses.gan_weight or losses.cycle"
    return ""


def _of_terms(job: TrainingJob) -> str:
    """The generator must have something to learn from, in every step."""
    losses = job.losses
    if losses.l1 or losses.gradient_l1 or losses.cross_entropy or losses.jaccard:
        return ""
    if losses.gan == "none" or not (losses.gan_weight or losses.feature_matching):
        return "no loss is left, set losses.l1, losses.cross_entropy or losses.gan"
    if losses.gan_from:
        return f"losses.gan_from is {losses.gan_from:g} and no loss is there before, set losses.l1"
    return ""


def _of_neighbours(job: TrainingJob) -> str:
    """They come in couples, and lie apart by eighths of the crop."""
    if not job.losses.overlap_disagreement:
        return ""
    if job.trainer.batch % 2:
        found, needed = f"trainer.batch is {job.trainer.batch}", "an even number"
    elif job.augment.crop % EIGHTHS:
        found, needed = f"augment.crop is {job.augment.crop}", f"a multiple of {EIGHTHS}"
    elif job.augment.rotation:
        # Turned, the pixels of one neighbour lie between those of the other.
        found, needed = f"augment.rotation is {job.augment.rotation:g}", "0"
    else:
        return ""
    return f"{found}, {needed} is needed by losses.overlap_disagreement"


def _of_networks(job: TrainingJob) -> str:
    """They halve their input again and again, and norms need more than one value."""
    crop, networks = job.augment.crop, job.networks
    if networks.generator in WITHOUT_WEIGHTS:
        return f"networks.generator {networks.generator} has no weights to train"
    if networks.encoder and networks.generator != "efficientnet":
        return f"networks.encoder needs networks.generator = efficientnet, not {networks.generator}"
    if networks.encoder and networks.init:
        return "networks.encoder and networks.init are both set, leave one out"
    for name, bands in (("generator", 3), ("discriminator", 3 if _is_cyclegan(job) else 6)):
        found = getattr(networks, f"{name}_arguments").get("bands", bands)
        if found != bands:
            return f"networks.{name}_arguments.bands is {found}, {bands} is needed"
    try:
        arguments = generator_arguments(networks.generator, networks.generator_arguments)
        judge = parse(PatchGANArguments, networks.discriminator_arguments, where="discriminator")
    except ModelError:
        return ""  # is told by itself, when the job is read
    if crop % arguments.multiple:
        return (
            f"augment.crop is {crop}, a multiple of {arguments.multiple} is needed by "
            f"networks.generator {networks.generator}"
        )
    norm = arguments.innermost_norm  # of a level that is a single pixel at the least crop
    alone = norm.startswith("instance") or (norm == "batch" and job.trainer.batch == 1)
    if crop == arguments.multiple and alone:
        return f"augment.crop is {crop}, at least {2 * crop} is needed by norm {norm} of one value"
    least = LEAST_SIDE * 2**judge.n_layers * judge.scales
    if job.losses.gan != "none" and crop < least:
        return (
            f"augment.crop is {crop}, at least {least} is needed by a discriminator of "
            f"n_layers {judge.n_layers}, scales {judge.scales}"
        )
    return ""
