"""The terms that training minimises. All give a scalar float32, a mean over pixels or patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tilemapper.networks.patchgan import Verdict

# Two tiles are compared at every so many-th pixel of a row and of a column, at others in each step:
# at the same ones always, a transposed convolution learns to make those unlike their neighbours.
EVERY = 2

GanLoss = Literal["none", "bce", "lsgan", "hinge", "wgan-gp"]


def discriminator_loss(kind: GanLoss, real: Sequence[Verdict], fake: Sequence[Verdict]) -> Tensor:
    """What the discriminator minimises, the mean over its scales.

    Half the sum of real and fake as in the paper; the Wasserstein difference for "wgan-gp".
    """
    return torch.stack(
        [_judge(kind, r.logits.float(), f.logits.float()) for r, f in zip(real, fake, strict=True)]
    ).mean()


def _judge(kind: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    if kind == "bce":
        return (functional.softplus(-real).mean() + functional.softplus(fake).mean()) / 2
    if kind == "lsgan":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if kind == "hinge":
        return (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()) / 2
    if kind == "wgan-gp":
        return fake.mean() - real.mean()
    raise ValueError(f"no discriminator loss for {kind}")


def adversarial_loss(kind: GanLoss, fake: Sequence[Verdict]) -> Tensor:
    """What the generator minimises: fakes taken for real, the mean over scales."""
    return torch.stack([_persuade(kind, verdict.logits.float()) for verdict in fake]).mean()


def _persuade(kind: GanLoss, fake: Tensor) -> Tensor:
    if kind == "bce":
        return functional.softplus(-fake).mean()
    if kind == "lsgan":
        return (fake - 1).square().mean()
    return -fake.mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Sequence[Verdict]],
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
) -> Tensor:
    """Mean squared distance of the discriminator's gradient norm from 1 (WGAN-GP).

    Args:
        discriminator: gives one verdict a scale.
        real: (n, c, h, w).
        fake: (n, c, h, w), detached.
        mix: (n,) in [0, 1], where between real and fake the gradient is taken.
    """
    mix = mix.view(-1, 1, 1, 1)
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)
    score = torch.stack([v.logits.float().mean((1, 2, 3)) for v in discriminator(between)]).mean(0)
    (gradient,) = torch.autograd.grad(score.sum(), between, create_graph=True)
    lengths: Tensor = torch.linalg.vector_norm(gradient.float().flatten(1), dim=1)
    return (lengths - 1).square().mean()


def feature_matching(real: Sequence[Verdict], fake: Sequence[Verdict]) -> Tensor:
    """Mean absolute difference of the discriminator's features, the mean over layers and scales."""
    differences = [
        (f.float() - r.detach().float()).abs().mean()
        for real_verdict, fake_verdict in zip(real, fake, strict=True)
        for r, f in zip(real_verdict.features, fake_verdict.features, strict=True)
    ]
    return torch.stack(differences).mean()


def gradient_l1(image: Tensor, truth: Tensor) -> Tensor:
    """L1 between the differences of neighbouring pixels, both directions: (n, c, h, w) each."""
    rows = (image.diff(dim=2) - truth.diff(dim=2)).abs().mean()
    cols = (image.diff(dim=3) - truth.diff(dim=3)).abs().mean()
    return rows + cols


def overlap_disagreement(
    output: Tensor, apart: tuple[int, int], *, palette: bool, step: int
) -> Tensor:
    """How differently neighbours paint the ground that they share, which has one truth.

    The squared difference, summed over channels: what an image's two views are held together by
    in Laine and Aila's Pi-model (2017), the views here being tiles that overlap.

    Args:
        output: (n, channels, h, w), odd samples the neighbours of the even ones before them.
        apart: rows and columns by which the odd ones lie beyond.
        palette: whether the channels are logits of classes, whose shares are compared.
        step: says which pixels are looked at; four steps in turn look at all.
    """
    rows, cols = apart
    height, width = output.shape[2:]
    row, col = step % EVERY, step // EVERY % EVERY
    # Channels last, which on a CPU is where softmax and sum are fast.
    near = output[0::2, :, rows + row :: EVERY, cols + col :: EVERY].permute(0, 2, 3, 1).float()
    far = output[1::2, :, row : height - rows : EVERY, col : width - cols : EVERY]
    far = far.permute(0, 2, 3, 1).float()
    if palette:
        near, far = near.softmax(-1), far.softmax(-1)
    return (near - far).square().sum(-1).mean()
