from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tilemapper.training import class_loss as module
from tilemapper.training.class_loss import IGNORED, class_loss, jaccard_loss
from tilemapper.training.classes import FAR


def made(*shape: int, k: int = 5, dtype: torch.dtype = torch.float32):
    """Logits (n, k, h, w) in the layout of a network's, classes with holes, weights."""
    random = torch.Generator().manual_seed(0)
    n, height, width = shape
    logits = 4 * torch.randn(n, k, height, width, generator=random).to(dtype)
    classes = torch.randint(k, shape, generator=random).byte()
    classes[:, :2] = IGNORED
    weights = torch.rand(k, generator=random) + 0.5
    return logits.contiguous(memory_format=torch.channels_last), classes, weights


def reference(logits, classes, weights):
    losses = functional.cross_entropy(
        logits.float(), classes.long(), weight=weights, ignore_index=IGNORED, reduction="none"
    )
    return losses.mean()


def with_gradient(loss, logits, *others):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, *others)
    (3 * value).backward()  # a weight other than 1 has to reach the gradient
    return value.detach(), leaf.grad


@pytest.mark.parametrize("piece", [1, 100, 2**18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_those_of_torch(monkeypatch, piece, dtype):
    """Pieces of one pixel, of some, of all; in bf16 the gradient is rounded twice, not once."""
    monkeypatch.setattr(module, "PIECE", piece)
    given = made(2, 7, 9, dtype=dtype)
    for logits in (given[0], given[0].contiguous()):  # channels last, and first
        value, gradient = with_gradient(class_loss, logits, *given[1:])
        true_value, true = with_gradient(reference, logits, *given[1:])
        torch.testing.assert_close(value, true_value, rtol=1e-5, atol=1e-6)
        rough = 2**-7 if dtype is torch.bfloat16 else 1e-5
        torch.testing.assert_close(gradient, true, rtol=rough, atol=1e-7)
        assert gradient.dtype is dtype


def test_the_gradient_is_the_slope_of_the_loss():
    logits, classes, weights = made(2, 4, 3, dtype=torch.float64)
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: class_loss(x, classes, weights), (leaf,))


def test_pixels_whose_logits_are_far_below_another_pixels_lose_no_digits():
    logits, classes, weights = made(1, 6, 6)
    logits[:, :, 3] -= 500
    logits[:, :, 4] += 500
    logits[:, 0, 5] += 300  # one sure class
    found, true = (with_gradient(f, logits, classes, weights) for f in (class_loss, reference))
    torch.testing.assert_close(found[0], true[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], true[1], rtol=1e-4, atol=1e-7)


def test_a_pixel_with_the_mark_of_a_far_colour_is_ignored():
    logits, classes, weights = made(1, 4, 4)
    marked = torch.where(classes == IGNORED, FAR + 1, classes).byte()
    found, true = (with_gradient(class_loss, logits, c, weights) for c in (marked, classes))
    assert torch.equal(found[0], true[0]) and torch.equal(found[1], true[1])
    assert not found[1][:, :, :2].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_shows_in_the_loss(bad):
    logits, classes, weights = made(1, 4, 4)
    logits[0, 1, 3, 3] = bad
    assert not class_loss(logits, classes, weights).isfinite()


def test_it_is_a_mean_over_all_pixels_whatever_their_classes():
    logits, classes, weights = made(4, 5, 5)
    whole = class_loss(logits, classes, weights)
    halves = [class_loss(logits[i : i + 2], classes[i : i + 2], weights) for i in (0, 2)]
    assert float(whole) == pytest.approx(float(sum(halves)) / 2, rel=1e-6)
    classes[:] = IGNORED
    assert float(class_loss(logits, classes, weights)) == 0


def test_jaccard_of_sure_classes_is_their_iou():
    true = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, IGNORED]]]).byte()
    painted = torch.tensor([[[0, 0, 0, 1], [0, 2, 1, 1]]])
    logits = 60 * functional.one_hot(painted, 4).permute(0, 3, 1, 2).float()
    # 0: 3 of 5, 1: 2 of 3 (the unknown pixel counts for nobody); 2 and 3 are not there.
    assert float(jaccard_loss(logits, true)) == pytest.approx(1 - (3 / 5 + 2 / 3) / 2)
    assert float(jaccard_loss(logits, torch.full_like(true, IGNORED))) == 0


def test_jaccard_counts_a_batch_as_a_whole():
    """An image with a sliver of a class must not count as much as one full of it."""
    logits, classes, _ = made(2, 6, 6)
    classes[0], classes[1] = 1, 2
    classes[0, 0, 0] = 2
    both = logits.softmax(1)
    hits = [both[0, 1].sum() - both[0, 1, 0, 0], both[1, 2].sum() + both[0, 2, 0, 0]]
    of = [both[:, 1].sum() + 35 - hits[0], both[:, 2].sum() + 37 - hits[1]]
    expected = 1 - sum(hit / union for hit, union in zip(hits, of, strict=True)) / 2
    torch.testing.assert_close(jaccard_loss(logits, classes), expected)


def test_the_gradient_of_jaccard_is_its_slope_and_leaves_unknown_pixels_alone():
    logits, classes, _ = made(2, 4, 3, dtype=torch.float64)
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: jaccard_loss(x, classes), (leaf,))
    jaccard_loss(leaf, classes).backward()
    assert float(leaf.grad[:, :, :2].abs().max()) == 0
    assert float(leaf.grad[:, :, 2:].abs().min()) > 0
