"""One step of CycleGAN: two generators that undo each other, two discriminators. Pairs optional."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from tilemapper.training import losses
from tilemapper.training.assembly import (
    make_discriminator,
    make_generator,
    make_optimiser,
    memory_format,
    place,
    use_bf16,
)
from tilemapper.training.augment import random_state
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Batch
from tilemapper.training.parallel import Processes, average_gradients
from tilemapper.training.schedule import rate_factor


class ImagePool:
    """Up to ``size`` generated images; each new one is swapped for an older one every other time.

    ``images``: (size, 3, h, w) float32 of which the first ``filled`` are there.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self.images = torch.empty(0)

    def swap(self, new: Tensor, random: torch.Generator) -> Tensor:
        """(n, 3, h, w) new images -> as many, some of them older; the rest are kept for later."""
        if not self.size:
            return new
        if not len(self.images):
            self.images = new.new_zeros((self.size, *new.shape[1:]))
        out = []
        for image in new:
            chance, place = torch.rand(2, generator=random).tolist()
            if self.filled < self.size:
                self.images[self.filled] = image
                self.filled += 1
                out.append(image)
            elif chance < 0.5:
                at = int(place * self.size)
                out.append(self.images[at].clone())
                self.images[at] = image
            else:
                out.append(image)
        return torch.stack(out)


class CycleGan:
    """The four networks and what one step does with them; ``generator`` goes source to target."""

    def __init__(self, job: TrainingJob, device: torch.device, processes: Processes) -> None:
        self.job = job
        self.device = device
        self.processes = processes
        config = job.trainer
        self.generator = place(make_generator(job), job, device, processes)
        self.backward = place(make_generator(job), job, device, processes)
        self.judge_target = place(make_discriminator(job), job, device, processes)
        self.judge_source = place(make_discriminator(job), job, device, processes)
        self.modules: dict[str, nn.Module] = {
            "generator": self.generator,
            "backward": self.backward,
            "judge_target": self.judge_target,
            "judge_source": self.judge_source,
        }
        generators = itertools.chain(self.generator.parameters(), self.backward.parameters())
        judges = itertools.chain(self.judge_target.parameters(), self.judge_source.parameters())
        rate = config.discriminator_learning_rate or config.learning_rate
        self.rates = {"generators": config.learning_rate, "discriminators": rate}
        self.optimisers = {
            "generators": make_optimiser(generators, config, config.learning_rate, device),
            "discriminators": make_optimiser(judges, config, rate, device),
        }
        self.pools = {"target": ImagePool(job.losses.pool), "source": ImagePool(job.losses.pool)}
        self._bf16 = use_bf16(config.precision, device)

    def paint(self, output: Tensor) -> Tensor:
        """The image that rendering would give: the output itself."""
        return output.float()

    def step(self, batch: Batch, step: int, done: float) -> dict[str, Tensor]:
        """Learns from one batch; ``done`` is the share of the run. Scalar losses, on the device."""
        config = self.job.trainer
        factor = rate_factor(config.schedule, done, warm_up=config.warm_up)
        source, target = (
            image.to(memory_format=memory_format(config)) for image in (batch.source, batch.target)
        )
        self._freeze_judges(frozen=True)
        with self._autocast():
            fake_target, fake_source = self.generator(source), self.backward(target)
            terms = self._generator_terms(source, target, fake_target, fake_source)
        weights = self._weights()
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        self._descend("generators", total, factor, (self.generator, self.backward))
        self._freeze_judges(frozen=False)
        random = random_state(config.seed, "pool", step, self.processes.rank)
        old_target = self.pools["target"].swap(fake_target.detach().float(), random)
        old_source = self.pools["source"].swap(fake_source.detach().float(), random)
        loss = self._judge(self.judge_target, target, old_target) + self._judge(
            self.judge_source, source, old_source
        )
        self._descend("discriminators", loss, factor, (self.judge_target, self.judge_source))
        terms |= {"generator": total, "discriminator": loss}
        return {name: value.detach() for name, value in terms.items()}

    def _generator_terms(
        self, source: Tensor, target: Tensor, fake_target: Tensor, fake_source: Tensor
    ) -> dict[str, Tensor]:
        weights = self.job.losses
        terms = {
            "gan": losses.adversarial_loss(weights.gan, self.judge_target(fake_target))
            + losses.adversarial_loss(weights.gan, self.judge_source(fake_source)),
            "cycle": _l1(self.backward(fake_target), source)
            + _l1(self.generator(fake_source), target),
        }
        if weights.identity:
            terms["identity"] = _l1(self.generator(target), target) + _l1(
                self.backward(source), source
            )
        return terms

    def _weights(self) -> dict[str, float]:
        weights = self.job.losses
        return {"gan": weights.gan_weight, "cycle": weights.cycle, "identity": weights.identity}

    def _judge(self, judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        with self._autocast():
            return losses.discriminator_loss(self.job.losses.gan, judge(real), judge(fake))

    def _freeze_judges(self, *, frozen: bool) -> None:
        for judge in (self.judge_target, self.judge_source):
            judge.requires_grad_(not frozen)

    def _descend(
        self, name: str, loss: Tensor, factor: float, modules: tuple[nn.Module, ...]
    ) -> None:
        optimiser = self.optimisers[name]
        for group in optimiser.param_groups:
            group["lr"] = self.rates[name] * factor
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for module in modules:
            average_gradients(module, self.processes)
            if name == "generators" and self.job.trainer.clip:
                nn.utils.clip_grad_norm_(module.parameters(), self.job.trainer.clip)
        optimiser.step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def extra_state(self) -> dict[str, Tensor]:
        """The image pools."""
        state = {}
        for name, pool in self.pools.items():
            state[f"{name}_images"] = pool.images
            state[f"{name}_filled"] = torch.tensor(pool.filled)
        return state

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """The counterpart; images of another size or number are those of another job, and left."""
        crop = self.job.augment.crop
        for name, pool in self.pools.items():
            if state[f"{name}_images"].shape != (pool.size, 3, crop, crop):
                continue
            pool.images = state[f"{name}_images"].to(self.device)
            pool.filled = int(state[f"{name}_filled"])


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).abs().mean()
