"""What a palette head is judged by: cross entropy over the classes, and their IoU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

IGNORED = 255
# Logits worked on at once: 1 MiB as float32, which a core's own cache holds about.
PIECE = 2**18
# Of a pixel's sum of shares, against the largest logit of its piece: below, digits would be lost.
SMALLEST_TOTAL = 2.0**-100


def class_loss(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy weighted by class, over all pixels; a scalar.

    Divided by the number of pixels, not by the sum of their weights: only so is the mean over
    two processes the loss of the double batch.

    Args:
        logits: (n, K, h, w).
        classes: (n, h, w) of integers, K to 255 where no class is known: `IGNORED`, or a mark.
        weights: (K,) float32.
    """
    if logits.device.type == "cpu":
        loss: Tensor = _InPieces.apply(logits, classes, weights)  # type: ignore[no-untyped-call]
        return loss
    known = torch.where(classes < logits.shape[1], classes.long(), IGNORED)
    losses = functional.cross_entropy(
        logits.float(), known, weight=weights, ignore_index=IGNORED, reduction="none"
    )
    return losses.mean()


def jaccard_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """1 - IoU of the class probabilities, the mean over the classes that are there; a scalar.

    The soft Jaccard index of Rahman and Wang (2016), counted over the whole batch as metrics count
    it: what an image has of a rare class is often too little to say anything. Each process of
    several counts its own part of the batch.

    Args:
        logits: (n, K, h, w).
        classes: (n, h, w) of integers, K to 255 where no class is known.
    """
    loss: Tensor = _Jaccard.apply(logits, classes)  # type: ignore[no-untyped-call]
    return loss


class _InPieces(torch.autograd.Function):
    """The same from pieces that stay in a core's cache, loss and gradient at once.

    Written for logits that are channels_last, where a pixel's are neighbours. torch's own turns
    them round in float32 and goes over them seven times: 66 ms against 20 ms for 16 images of
    256 x 256 pixels and 15 classes on one core of an AMD EPYC.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Scalar, in float32 or in what is finer."""
        n, k, height, width = logits.shape
        rows = logits.permute(0, 2, 3, 1).reshape(-1, k)
        labels = classes.reshape(-1)
        precise = torch.promote_types(logits.dtype, torch.float32)
        table = torch.zeros(IGNORED + 1, dtype=precise)
        table[:k] = weights / max(1, len(rows))
        gradient = torch.empty_like(rows)
        loss = torch.zeros((), dtype=precise)
        size = max(1, PIECE // k)
        for piece in (slice(at, at + size) for at in range(0, len(rows), size)):
            loss += _piece(rows[piece], labels[piece].long(), table, gradient[piece])
        ctx.save_for_backward(gradient.view(n, height, width, k).permute(0, 3, 1, 2))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the logits, in their type."""
        (gradient,) = ctx.saved_tensors
        # On a CPU looking at a number costs nothing, and a weight of 1 is the usual one.
        return gradient if float(above[0]) == 1 else gradient * above[0], None, None


def _piece(logits: Tensor, labels: Tensor, table: Tensor, gradient: Tensor) -> Tensor:
    """Sum of the losses of some pixels; their gradient goes to ``gradient`` (m, K).

    Args:
        logits: (m, K).
        labels: (m,) int64.
        table: (256,) weight of each label, over the number of all pixels.
        gradient: (m, K) of the type of the logits.
    """
    weight = table.index_select(0, labels)[:, None]
    chosen = labels.clamp(max=logits.shape[1] - 1)[:, None]  # an ignored pixel's weight is 0
    logit = logits.gather(1, chosen).to(table.dtype)
    shares, total, top = _powers(logits, table.dtype)
    normaliser = total.log() + top
    shares.mul_(weight / total).scatter_add_(1, chosen, -weight)
    gradient.copy_(shares)
    return ((normaliser - logit) * weight).sum()


def _powers(logits: Tensor, precise: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Powers of e, the logits (m, K), all over e**top; each pixel's sum of them (m, 1); and top.

    Their quotient is the softmax, which torch takes eight times as long for in so short rows.
    """
    top = logits.max().to(precise)
    # By powers of 2: torch takes e's from a library that is four times as slow on some processors.
    powers = logits.to(precise, copy=True).sub_(top).mul_(math.log2(math.e)).exp2_()
    total = powers @ powers.new_ones(powers.shape[1], 1)
    if bool(total.min() > SMALLEST_TOTAL):
        return powers, total, top
    x = logits.to(precise)  # a pixel's logits are all far below another's
    return x.softmax(1), torch.ones_like(total), x.logsumexp(1, keepdim=True)


class _Jaccard(torch.autograd.Function):
    """Counted piece by piece, as `_InPieces`; the gradient then needs the sums of all pieces."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor) -> Tensor:
        """Scalar, in float32 or in what is finer."""
        count = logits.shape[1]
        precise = torch.promote_types(logits.dtype, torch.float32)
        labels = classes.reshape(-1)
        hits, painted, true = torch.zeros(3, count, dtype=precise, device=logits.device)
        for rows, piece in _pieces(logits, labels):
            shares, chosen, known = _known_shares(rows, piece, precise)
            # Not by adding at an index, where CUDA takes its turns in any order.
            right = torch.zeros_like(shares).scatter_(1, chosen, known)
            true += right.sum(0)
            hits += right.mul_(shares).sum(0)
            painted += (known.T @ shares)[0]
        union = (true + painted - hits).clamp(min=1e-6)
        there = (true > 0).to(precise) / (true > 0).sum().clamp(min=1)
        # How the loss changes with a class's hits, and with what is painted as it.
        slopes = torch.stack([-(union + hits), hits]) / union.square() * there
        ctx.save_for_backward(logits, labels, slopes)
        loss: Tensor = ((1 - hits / union) * there).sum()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None]:
        """The gradient of the logits, in their type."""
        logits, labels, slopes = ctx.saved_tensors
        hit, paint = slopes * above[0]
        n, k, height, width = logits.shape
        gradient = logits.new_empty(n * height * width, k)
        at = 0
        for rows, piece in _pieces(logits, labels):
            shares, chosen, known = _known_shares(rows, piece, slopes.dtype)
            shares.mul_(known)
            one = shares.gather(1, chosen) * hit[chosen]
            mean = one + shares @ paint[:, None]
            slope = shares.mul_(paint - mean).scatter_add_(1, chosen, one)
            gradient[at : at + len(rows)] = slope
            at += len(rows)
        return gradient.view(n, height, width, k).permute(0, 3, 1, 2), None


def _pieces(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (m, K) and labels (m,) that stay in a core's cache; all at once elsewhere."""
    count = logits.shape[1]
    rows = logits.permute(0, 2, 3, 1).reshape(-1, count)
    size = max(1, PIECE // count) if rows.device.type == "cpu" else len(rows)
    for at in range(0, len(rows), size):
        yield rows[at : at + size], labels[at : at + size]


def _known_shares(
    logits: Tensor, labels: Tensor, precise: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (m, K), labels (m, 1) with some class where unknown, (m, 1) 1 where known."""
    count = logits.shape[1]
    if logits.device.type == "cpu":
        powers, total, _ = _powers(logits, precise)
        shares = powers.div_(total)
    else:
        shares = logits.to(precise).softmax(1)
    known = (labels < count).to(precise)[:, None]
    return shares, labels.long().clamp(max=count - 1)[:, None], known
