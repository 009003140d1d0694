"""One step of pix2pix: the discriminator learns, then the generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tilemapper.networks.patchgan import Verdict
from tilemapper.training import losses
from tilemapper.training.assembly import (
    compiled,
    make_discriminator,
    make_generator,
    make_optimiser,
    memory_format,
    place,
    use_bf16,
)
from tilemapper.training.augment import random_state
from tilemapper.training.class_loss import class_loss, jaccard_loss
from tilemapper.training.classes import ClassColours, nearest_classes
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Batch
from tilemapper.training.imagery import vary_imagery
from tilemapper.training.parallel import Processes, average_gradients
from tilemapper.training.schedule import rate_factor


class Pix2Pix:
    """The networks and optimisers of pix2pix and what one step does with them.

    ``class_weights``: (K,) float32 for a palette head.
    """

    def __init__(
        self,
        job: TrainingJob,
        device: torch.device,
        processes: Processes,
        class_weights: Tensor | None = None,
    ) -> None:
        self.job = job
        self.device = device
        self.processes = processes
        self.class_weights = class_weights
        config = job.trainer
        self.colours = ClassColours(job.palette, device) if job.networks.head == "palette" else None
        self.generator = place(make_generator(job), job, device, processes)
        self.modules: dict[str, nn.Module] = {"generator": self.generator}
        self.rates = {"generator": config.learning_rate}
        self.discriminator: nn.Module | None = None
        if job.losses.gan != "none":
            self.discriminator = place(make_discriminator(job), job, device, processes)
            self.modules["discriminator"] = self.discriminator
            rate = config.discriminator_learning_rate or config.learning_rate
            self.rates["discriminator"] = rate
        self.optimisers = {
            name: make_optimiser(module.parameters(), config, self.rates[name], device)
            for name, module in self.modules.items()
        }
        self._generate = compiled(self.generator, config.compile)
        self._bf16 = use_bf16(config.precision, device)

    def paint(self, output: Tensor) -> Tensor:
        """The image that rendering would give: (n, channels, h, w) -> (n, 3, h, w)."""
        return self.colours.most_likely_colour(output) if self.colours else output.float()

    def step(self, batch: Batch, step: int, done: float) -> dict[str, Tensor]:
        """Learns from one batch; ``done`` is the share of the run. Scalar losses, on the device."""
        config = self.job.trainer
        factor = rate_factor(config.schedule, done, warm_up=config.warm_up)
        source = batch.source.to(memory_format=memory_format(config))
        if self.job.data.direction == "AtoB":
            source = vary_imagery(source, batch.tone, self.job.augment)
        with self._autocast():
            output = self._generate(source)
        terms: dict[str, Tensor] = {}
        fake, real = self._images(output, batch.target, terms)
        if batch.apart:
            terms["overlap_disagreement"] = losses.overlap_disagreement(
                output, batch.apart, palette=self.colours is not None, step=step
            )
        judged = self.discriminator is not None and done >= self.job.losses.gan_from
        if judged:
            terms["discriminator"] = self._discriminator_step(source, real, fake, step, factor)
            self._add_adversarial(terms, source, real, fake)
        weights = self._weights()
        total = torch.stack([weights[n] * v for n, v in terms.items() if n in weights]).sum()
        self._descend("generator", total, factor)
        terms["generator"] = total
        return {name: value.detach() for name, value in terms.items()}

    def _images(
        self, output: Tensor, target: Tensor, terms: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Fake and real image in [-1, 1]; the terms that compare them go to ``terms``."""
        weights = self.job.losses
        if self.colours is None:
            fake, real = output.float(), target
        else:
            if weights.cross_entropy:
                assert self.class_weights is not None
                terms["cross_entropy"] = class_loss(output, target, self.class_weights)
            if weights.jaccard:
                terms["jaccard"] = jaccard_loss(output, target)
            if not self._needs_images():
                return target, target
            fake = self.colours.expected_colour(output)
            # The discriminator should look at shapes, not for the noise of a JPEG.
            real = self.colours.paint(nearest_classes(target))
        if weights.l1:
            terms["l1"] = (fake - real).abs().mean()
        if weights.gradient_l1:
            terms["gradient_l1"] = losses.gradient_l1(fake, real)
        return fake, real

    def _needs_images(self) -> bool:
        weights = self.job.losses
        return bool(self.discriminator or weights.l1 or weights.gradient_l1)

    def _weights(self) -> dict[str, float]:
        weights = self.job.losses
        return {
            "cross_entropy": weights.cross_entropy,
            "jaccard": weights.jaccard,
            "l1": weights.l1,
            "gradient_l1": weights.gradient_l1,
            "overlap_disagreement": weights.overlap_disagreement,
            "gan": weights.gan_weight,
            "feature_matching": weights.feature_matching,
        }

    def _discriminator_step(
        self, source: Tensor, real: Tensor, fake: Tensor, step: int, factor: float
    ) -> Tensor:
        weights = self.job.losses
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        pairs = torch.cat([source, real], 1), torch.cat([source, fake.detach()], 1)
        with self._autocast():
            verdicts = self._judge_both(*pairs)
        loss = losses.discriminator_loss(weights.gan, *verdicts)
        if weights.gan == "wgan-gp":
            loss = loss + weights.lambda_gp * self._penalty(*pairs, step)
        self._descend("discriminator", loss, factor)
        return loss

    def _judge_both(
        self, real: Tensor, fake: Tensor
    ) -> tuple[Sequence[Verdict], Sequence[Verdict]]:
        assert self.discriminator is not None
        if not self.job.losses.joint_batch:
            return self.discriminator(real), self.discriminator(fake)
        both = self.discriminator(torch.cat([real, fake]))
        n = len(real)
        halves = [
            [Verdict(v.logits[half], tuple(f[half] for f in v.features)) for v in both]
            for half in (slice(None, n), slice(n, None))
        ]
        return halves[0], halves[1]

    def _penalty(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        assert self.discriminator is not None
        n, world = len(real), self.processes.world
        random = random_state(self.job.trainer.seed, "mix", step)
        mix = torch.rand(n * world, generator=random)[self.processes.rank * n :][:n]
        # Second derivatives in float32: bf16 has too few digits for a norm near 1.
        return losses.gradient_penalty(self.discriminator, real, fake, mix.to(self.device))

    def _add_adversarial(
        self, terms: dict[str, Tensor], source: Tensor, real: Tensor, fake: Tensor
    ) -> None:
        """The terms by which the generator learns from the discriminator, which is frozen."""
        assert self.discriminator is not None
        weights = self.job.losses
        self.discriminator.requires_grad_(False)
        with self._autocast():
            verdicts = self.discriminator(torch.cat([source, fake], 1))
        terms["gan"] = losses.adversarial_loss(weights.gan, verdicts)
        if weights.feature_matching:
            with torch.no_grad(), self._autocast():
                truth = self.discriminator(torch.cat([source, real], 1))
            terms["feature_matching"] = losses.feature_matching(truth, verdicts)

    def _descend(self, name: str, loss: Tensor, factor: float) -> None:
        optimiser = self.optimisers[name]
        for group in optimiser.param_groups:
            group["lr"] = self.rates[name] * factor
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.modules[name], self.processes)
        if name == "generator" and self.job.trainer.clip:
            nn.utils.clip_grad_norm_(self.generator.parameters(), self.job.trainer.clip)
        optimiser.step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def extra_state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides networks and optimisers: nothing here."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """The counterpart of `extra_state`."""
