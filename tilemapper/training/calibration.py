"""Holds back the classes that a weighted loss makes a palette head paint too often.

Cross entropy weighted by class makes rare classes win where they should not: a network trained so
paints twice as much motorway as there is. Which part of the weights to take back is found on
training pairs, one number a class, and goes into the bias of the last convolution: the same
network, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tilemapper.training.class_loss import IGNORED
from tilemapper.training.classes import ClassColours, known_classes
from tilemapper.training.feed import Feed

# How much of a class's weight is taken back, and how often the classes are gone through.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
ROUNDS = 2
# Every so many-th pixel of a batch is looked at: neighbours say the same.
EVERY = 7


@torch.no_grad()
def calibrate_classes(
    generator: nn.Module,
    feed: Feed,
    colours: ClassColours,
    weights: Tensor,
    batches: int,
    *,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Lowers the biases of a palette head in place; returns what was taken off, by class.

    Args:
        generator: in eval mode, its statistics final: (n, 3, h, w) -> (n, K, h, w) logits.
        feed: training pairs.
        colours: the classes.
        weights: (K,) float32, those of the loss; none of them is taken back by more than it gave.
        batches: how many to look at, 0 for leaving the biases as they are.
        check: called again and again before the biases are changed, and may raise.
    """
    most = torch.log(weights / weights.min()).cpu()
    if not batches or not float(most.max()):
        return {}
    seen = []
    for batch in range(batches):
        check()
        seen.append(_look(generator, feed, batch))
    logits, classes = (torch.cat(parts) for parts in zip(*seen, strict=True))
    shift = best_shift(logits, classes, most, check=check)
    shift_logits(generator, shift)
    pairs = zip(colours.classes, shift.tolist(), strict=True)
    return {c.name: round(-value, 3) for c, value in pairs if value}


def best_shift(
    logits: Tensor, classes: Tensor, most: Tensor, *, check: Callable[[], None] = lambda: None
) -> Tensor:
    """(K,) float32, at most 0: what to add to the logits.

    A class is lowered to where its own IoU is best, as long as the mean IoU over the classes does
    not fall. The mean alone would take from frequent classes to give to ones that nobody sees.

    Args:
        logits: (n, K) float32.
        classes: (n,) int64, the true class of each pixel.
        most: (K,) float32, how much each class may be lowered.
        check: called before each class, and may raise.
    """
    shift = torch.zeros_like(most)
    best = _ious(logits, classes)
    for _ in range(ROUNDS):
        for k in range(len(most)):
            check()
            for share in SHARES:
                tried = shift.clone()
                tried[k] = -share * most[k]
                found = _ious(logits + tried, classes)
                if found[k] > best[k] + 1e-6 and found.nanmean() >= best.nanmean():
                    best, shift = found, tried
    return shift


@torch.no_grad()
def shift_logits(generator: nn.Module, shift: Tensor) -> None:
    """Adds ``shift`` (K,) to the logits, in the bias of the head's convolution."""
    bias = generator.head.conv.bias  # type: ignore[union-attr]
    assert isinstance(bias, Tensor)
    # A head that shuffles has four channels a class, one after the other.
    bias.add_(shift.to(bias.device).repeat_interleave(len(bias) // len(shift)))


def _look(generator: nn.Module, feed: Feed, number: int) -> tuple[Tensor, Tensor]:
    """Logits (n, K) and classes (n,) of some pixels of one batch, on the host."""
    batch = feed.make(number)
    classes = known_classes(batch.target).flatten()[::EVERY].long()
    logits = generator(batch.source).float().permute(0, 2, 3, 1).flatten(0, 2)[::EVERY]
    known = classes != IGNORED
    return logits[known].cpu(), classes[known].cpu()


def _ious(logits: Tensor, classes: Tensor) -> Tensor:
    """(K,) float64, NaN for a class that does not occur."""
    count = logits.shape[1]
    table = torch.bincount(classes * count + logits.argmax(1), minlength=count * count)
    table = table.view(count, count).double()
    hit, true, painted = table.diagonal(), table.sum(1), table.sum(0)
    return torch.where(true > 0, hit / (true + painted - hit).clamp(min=1), torch.nan)
