"""What a training job consists of: the sections of a job file as closed, typed, bounded tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tilemapper.networks.arguments import NAME
from tilemapper.networks.model import PaletteClass
from tilemapper.training.agreement import disagreement

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
# Of a larger one torch's generator takes the last 32 bits alone, or none.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Decay = Annotated[float, Field(ge=0, lt=1)]
# Arrays of TOML are lists; what is in them keeps its type.
Array = Field(strict=False)


class Section(BaseModel):
    """A table of a job file: unknown keys are refused, values keep their type, all are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ExtraPairs(Section):
    """A second source of pairs, mixed in: ``share`` of all samples are drawn from it."""

    path: str
    share: Annotated[float, Field(gt=0, lt=1)]


class DataConfig(Section):
    """Which pairs. ``overlaps``: JSON list of overlapping pairs; "" looks beside the data.

    ``held_out``: share kept for the held-out metric where the data has no val folder.
    ``resize``: shorter side in pixels that images are brought to first; 0 keeps their size.
    ``gsd_m``: metres a pixel of what the network is shown, after ``resize``, for the card; 0 if
    unknown.
    ``storage``: "device", "host" or "mmap" (a file in the run folder); "auto" takes the first
    of them that the pixels fit in.
    """

    direction: Literal["AtoB", "BtoA"] = "AtoB"
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    split_seed: Count = 0
    overlaps: str = ""
    unpaired: bool = False
    resize: Count = 0
    storage: Literal["auto", "device", "host", "mmap"] = "auto"
    gsd_m: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    extra: Annotated[tuple[ExtraPairs, ...], Array] = ()


class AugmentConfig(Section):
    """How pairs are varied; one draw moves both images.

    ``scale``: bounds of the side of the patch of ground, in crops; drawn once a batch.
    ``rotation``: degrees by which half of the batches are turned at most, either way; needs images
    in which a patch so turned has room.
    Tones change on the source side only, where that is imagery ("AtoB"), in shares of the full
    range: ``gamma`` is by how much the exponent of a share is doubled or halved at most (1: dark
    imagery becomes as bright as its square root, or darker still, its square), ``saturation`` is
    by how often the distance of colours from grey is doubled or halved at most, ``brightness`` is
    added, ``contrast`` multiplies, ``cast`` is added to each band by itself, ``noise`` is the
    largest standard deviation of added noise. ``blur`` is the largest standard deviation of a
    Gaussian blur in pixels, ``jpeg_quality`` the lowest quality of a JPEG compression, 100 for
    none.
    """

    crop: Annotated[int, Field(ge=16, le=2048)] = 256
    flips: Literal["none", "horizontal", "both"] = "both"
    right_angles: bool = True
    scale: Annotated[tuple[float, float], Array] = (1.0, 1.0)
    rotation: Annotated[float, Field(ge=0, le=45)] = 0.0
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.0
    saturation: Annotated[float, Field(ge=0, le=4)] = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    cast: Share = 0.0
    noise: Share = 0.0
    blur: Annotated[float, Field(ge=0, le=8)] = 0.0
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 100

    @model_validator(mode="after")
    def _scale_in_order(self) -> AugmentConfig:
        if not 0.25 <= self.scale[0] <= self.scale[1] <= 4:
            raise ValueError("two numbers from 0.25 to 4 in ascending order are needed")
        return self


class NetworksConfig(Section):
    """Generator and discriminator; the ``_arguments`` are those of `tilemapper.networks.build`.

    ``init``: name or folder of a model that the generator starts from instead of fresh weights;
    its architecture, arguments (dropout aside) and palette must be the job's. ``encoder``: file
    with an EfficientNet-Lite0 trained on ImageNet (a state dict of PyTorch, named as
    efficientnet_pytorch does), from which the encoder of generator "efficientnet" starts (of both
    generators of a "cyclegan").
    """

    generator: str = "unet"
    generator_arguments: dict[str, float | int | str | bool] = {}
    head: Literal["rgb", "palette"] = "rgb"
    discriminator_arguments: dict[str, float | int | str | bool] = {}
    init: str = ""
    encoder: str = ""


class LossesConfig(Section):
    """Weights of the generator's terms; a term of weight 0 is not computed.

    ``gan_from``: share of the run after which the adversarial terms begin. ``joint_batch``: real
    and fake go through the discriminator as one batch (faster) instead of one after the other
    (the paper). ``class_power``: a class weighs share ** -class_power, times what
    ``class_boost`` says of its name. ``overlap_disagreement`` weighs what two overlapping patches
    of a pair paint differently; with it the samples of a batch come in such couples. ``jaccard``
    weighs 1 - IoU of the class probabilities, the mean over the classes that a batch has.
    ``cycle``, ``identity`` and ``pool`` (images kept for the discriminator) belong to the task
    "cyclegan".
    """

    gan: Literal["none", "bce", "lsgan", "hinge", "wgan-gp"] = "bce"
    gan_weight: NonNegative = 1.0
    gan_from: Share = 0.0
    joint_batch: bool = False
    lambda_gp: NonNegative = 10.0
    l1: NonNegative = 100.0
    gradient_l1: NonNegative = 0.0
    overlap_disagreement: NonNegative = 0.0
    cross_entropy: NonNegative = 0.0
    jaccard: NonNegative = 0.0
    class_power: Share = 0.4
    class_boost: dict[str, Annotated[float, Field(gt=0, le=100)]] = {}
    feature_matching: NonNegative = 0.0
    cycle: NonNegative = 10.0
    identity: NonNegative = 5.0
    pool: Count = 50


class TrainerConfig(Section):
    """How long and how. One of ``steps``, ``epochs``, ``minutes`` is the length of the run.

    ``minutes`` is the time over which the schedule runs, resumes included; ``minutes_of`` says
    whether it is that of the steps alone or of all, evaluation and checkpoints included, as it is
    where --budget-minutes gives the length. Steps and epochs repeat bit for bit on a CPU, minutes
    do not. ``precision``: "auto" is bf16 where the device is faster in it; "fp32" convolves in
    TF32 on CUDA, figures aside. ``schedule``: "constant", "linear" (to 0),
    "half-linear" (constant, then to 0 over the second half), "cosine". ``clip``: largest norm of
    the generator's gradient, 0 for none. ``ema``: decay of the averaged generator that is judged
    and exported, 0 for none. The ``_every`` are steps, 0 for never; ``keep``: numbered
    checkpoints that stay. ``best_by``: a held-out metric, or "loss". Before export statistics of
    batch norms are taken over ``precise_bn_batches``, and classes that the loss's weights made too
    frequent are held back as ``calibration_batches`` of training pairs say (see `calibration`).
    """

    task: Literal["pix2pix", "cyclegan"] = "pix2pix"
    steps: Count = 0
    epochs: Count = 0
    minutes: NonNegative = 0.0
    minutes_of: Literal["steps", "all"] = "steps"
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    discriminator_learning_rate: NonNegative = 0.0
    betas: Annotated[tuple[Decay, Decay], Array] = (0.5, 0.999)
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "linear", "half-linear", "cosine"] = "linear"
    warm_up: Share = 0.0
    clip: NonNegative = 0.0
    ema: Decay = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    sync_batch_norm: bool = True
    log_every: Annotated[int, Field(ge=1)] = 50
    checkpoint_every: Count = 500
    keep: Count = 3
    evaluate_every: Count = 500
    evaluate_pairs: Annotated[int, Field(ge=1)] = 64
    sample_every: Count = 500
    sample_pairs: Annotated[int, Field(ge=1, le=32)] = 4
    best_by: str = "psnr"
    precise_bn_batches: Count = 50
    calibration_batches: Count = 0
    seed: Seed = 0


class TrainingJob(Section):
    """A whole job file of kind "training". ``palette``: the classes of a palette head, in order."""

    kind: Literal["training"] = "training"
    name: Annotated[str, Field(pattern=NAME)] = "model"
    licence: str = ""
    origin: str = ""
    palette: Annotated[tuple[PaletteClass, ...], Array] = ()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    networks: NetworksConfig = NetworksConfig()
    losses: LossesConfig = LossesConfig()
    trainer: TrainerConfig = TrainerConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> TrainingJob:
        fault = disagreement(self)
        if fault:
            raise ValueError(fault)
        return self

    @property
    def channels(self) -> int:
        """Channels that the generator ends in: 3, or one a class."""
        return len(self.palette) if self.networks.head == "palette" else 3

    def plain(self) -> dict[str, Any]:
        """The job as JSON values, defaults included."""
        return self.model_dump(mode="json")
