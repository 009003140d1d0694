"""Builds what a job trains: networks, optimisers, the averaged generator, the devices' settings."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tilemapper.errors import DeviceError, JobError
from tilemapper.networks.arguments import generator_arguments
from tilemapper.networks.build import build_discriminator, build_generator
from tilemapper.networks.efficientnet import EfficientUNet
from tilemapper.networks.model import Model, open_model
from tilemapper.networks.pretrained import read_encoder
from tilemapper.networks.processor import gains_by_bf16
from tilemapper.training.config import TrainerConfig, TrainingJob
from tilemapper.training.optimisers import InOrderAdam, InOrderAdamW
from tilemapper.training.parallel import Processes, synchronised


def make_generator(job: TrainingJob) -> nn.Module:
    """A generator with fresh weights: (n, 3, h, w) in [-1, 1] -> (n, channels, h, w)."""
    networks = job.networks
    return build_generator(
        networks.generator, networks.generator_arguments, job.channels, networks.head
    )


def make_discriminator(job: TrainingJob) -> nn.Module:
    """A discriminator with fresh weights, of pairs (6 bands), or of images for "cyclegan"."""
    bands = 3 if job.trainer.task == "cyclegan" else 6
    return build_discriminator({"bands": bands, **job.networks.discriminator_arguments})


def model_to_start_from(job: TrainingJob) -> Model | None:
    """The model ``networks.init`` names, if any, its card found to be of the job's kind.

    Raises:
        ModelError: there is no such model, or its card is damaged.
        JobError: it is of another architecture, head or palette than the job's.
    """
    if not job.networks.init:
        return None
    model = open_model(job.networks.init)
    card, networks = model.card, job.networks
    palette = job.palette if networks.head == "palette" else ()
    if (card.head, card.palette) != (networks.head, palette):
        raise JobError(
            f"networks.init {card.name}: {card.head} head of {card.channels} channels found, "
            f"{networks.head} of {job.channels} (the same classes) is needed; change the job's"
        )
    # Compared by themselves: weights also load into a network of other activations or padding.
    found = generator_kind(card.architecture, card.arguments)
    if found != generator_kind(networks.generator, networks.generator_arguments):
        raise JobError(
            f"networks.init {card.name}: {card.architecture} {card.arguments} found, "
            f"{networks.generator} {networks.generator_arguments} is needed; set the "
            "generator_arguments of the model"
        )
    return model


def generator_kind(architecture: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture, and of its arguments, completed, those that outlive training."""
    values = generator_arguments(architecture, arguments).model_dump()
    return architecture, {n: v for n, v in values.items() if not n.startswith("dropout")}


def start_from(
    generator: nn.Module, job: TrainingJob, *, backward: nn.Module | None = None
) -> tuple[str, ...]:
    """Gives the generator the weights that ``networks.init`` or ``networks.encoder`` names, if any.

    ``backward``: the generator of the other direction, where there is one. What an encoder was
    taught holds for its images too; a model's weights are of the direction on its card.

    Returns the digests of the pairs that such a model has learned from, as far as its card says.
    Raises as `model_to_start_from` and `read_encoder`, and ModelError for damaged weights.
    """
    if job.networks.encoder:
        state = read_encoder(Path(job.networks.encoder))
        for network in (generator, backward):
            if isinstance(network, EfficientUNet):
                network.encoder.load_state_dict(state)
    model = model_to_start_from(job)
    if model is None:
        return ()
    generator.load_state_dict(model.generator().state_dict())
    return model.card.trained_sha256


def place(
    network: nn.Module, job: TrainingJob, device: torch.device, processes: Processes
) -> nn.Module:
    """The network in train mode on the device, its batch norms synchronised if asked for."""
    if job.trainer.sync_batch_norm:
        network = synchronised(network, processes)
    for tensor in (*network.parameters(), *network.buffers()):
        # Only weights of convolutions have a memory format.
        spare = memory_format(job.trainer) if tensor.dim() == 4 else torch.contiguous_format
        tensor.data = tensor.data.to(device).contiguous(memory_format=spare)
    return network.train()


def make_optimiser(
    parameters: Iterable[nn.Parameter], config: TrainerConfig, rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """Adam or AdamW, fused where the device has it."""
    kind = InOrderAdamW if config.optimizer == "adamw" else InOrderAdam
    return kind(
        list(parameters),
        lr=rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type in ("cuda", "cpu"),
    )


class Average:
    """An exponential moving average of a network, buffers included; ``network`` is in eval mode.

    The decay grows from near 0 with the steps, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves towards ``network``, whose step ``step`` (from 0) is done."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = _tensors(self.network), _tensors(network)
        torch._foreach_lerp_(
            [t for t in mine if t.is_floating_point()],
            [t for t in theirs if t.is_floating_point()],
            1 - decay,
        )
        for a, b in zip(mine, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*(p.data for p in network.parameters()), *network.buffers()]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device, else the CPU.

    Raises DeviceError when there is none of this name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: unknown, auto, cpu or cuda is needed") from error
    # Devices are also counted where the driver is too old for torch, which then cannot use them.
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = found if device.type == "cuda" else 1
    if device.type not in ("cpu", "cuda") or (device.index or 0) >= count:
        raise DeviceError(f"--device {name}: not found here, {found} CUDA device(s) are; use auto")
    # With its number: tensors say "cuda:0", and "cuda" is not equal to that.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16; "auto" does where the device is faster so."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return gains_by_bf16()


@contextmanager
def whole_float32() -> Iterator[None]:
    """Inside, float32 convolves as that on CUDA too, where torch's default is TF32 (10 bits)."""
    before = _allow_tf32(allowed=False)
    try:
        yield
    finally:
        _allow_tf32(allowed=before)


def _allow_tf32(*, allowed: bool) -> bool:
    """Returns whether it was."""
    with warnings.catch_warnings():
        # Some versions of torch warn of this name, and the new one is not to be mixed with it.
        warnings.filterwarnings("ignore", "Please use the new API settings")
        before: bool = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
    return before


def memory_format(config: TrainerConfig) -> torch.memory_format:
    """The memory format of networks and images."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def compiled(network: nn.Module, mode: str) -> Any:
    """The network, through torch.compile unless ``mode`` is "off".

    "reduce-overhead" replays CUDA graphs of its parts.
    """
    return network if mode == "off" else torch.compile(network, mode=mode)


def compiler_fault(error: BaseException) -> DeviceError | None:
    """What an error of torch.compile means to a user; it comes with the first step. Else None."""
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return None
    reason = (str(error).splitlines() or ["no message"])[0]
    return DeviceError(
        f"trainer.compile: torch.compile failed ({reason}); install g++ (and triton, for CUDA), or "
        "set it to off"
    )
