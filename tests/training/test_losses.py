from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from tilemapper.networks.model import PaletteClass
from tilemapper.networks.patchgan import Verdict
from tilemapper.training import losses
from tilemapper.training.agreement import MOST_CLASSES
from tilemapper.training.class_loss import IGNORED
from tilemapper.training.classes import (
    ClassColours,
    class_weights,
    known_classes,
    nearest_classes,
)
from tilemapper.training.schedule import rate_factor

CPU = torch.device("cpu")
CLASSES = [
    PaletteClass(name="land", colour=(232, 228, 224)),
    PaletteClass(name="water", colour=(177, 209, 255)),
    PaletteClass(name="road", colour=(255, 255, 255)),
]


def verdict(value: float) -> list[Verdict]:
    return [Verdict(torch.full((2, 1, 3, 3), value), ())]


@pytest.mark.parametrize(
    ("kind", "real", "fake", "discriminator", "generator"),
    [
        ("bce", 0.0, 0.0, math.log(2), math.log(2)),
        ("bce", 2.0, -1.0, (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2,
         math.log1p(math.exp(1))),
        ("lsgan", 0.5, 0.25, (0.25 + 0.0625) / 2, 0.5625),
        ("hinge", 0.5, -2.0, 0.25, 2.0),
        ("wgan-gp", 3.0, 1.0, -2.0, -1.0),
    ],
)  # fmt: skip
def test_adversarial_losses_are_their_formulas(kind, real, fake, discriminator, generator):
    found = losses.discriminator_loss(kind, verdict(real), verdict(fake))
    assert float(found) == pytest.approx(discriminator, abs=1e-6)
    assert float(losses.adversarial_loss(kind, verdict(fake))) == pytest.approx(generator, abs=1e-6)


def test_two_scales_are_averaged():
    found = losses.adversarial_loss("lsgan", verdict(1.0) + verdict(0.0))
    assert float(found) == pytest.approx(0.5)


def test_the_gradient_penalty_of_a_linear_judge_is_known():
    # The score is 3 * the mean of all values, so its gradient is 3 / count everywhere.
    def judge(x):
        return [Verdict(3 * x.mean((1, 2, 3), keepdim=True), ())]

    shape = (2, 1, 4, 4)
    found = losses.gradient_penalty(judge, torch.zeros(shape), torch.ones(shape), torch.rand(2))
    assert float(found) == pytest.approx((3 / 16 * 4 - 1) ** 2, abs=1e-6)


def test_feature_matching_teaches_the_generator_only():
    real = torch.zeros(1, 2, 2, 2, requires_grad=True)
    fake = torch.ones(1, 2, 2, 2, requires_grad=True)
    loss = losses.feature_matching([Verdict(real, (real,))], [Verdict(fake, (fake, fake * 3)[:1])])
    loss.backward()
    assert float(loss.detach()) == 1
    assert real.grad is None and fake.grad is not None


def test_gradient_l1_ignores_a_constant_and_sees_an_edge():
    image = torch.zeros(1, 1, 4, 4)
    assert float(losses.gradient_l1(image + 0.7, image)) == pytest.approx(0, abs=1e-6)
    edge = image.clone()
    edge[..., 2:] = 1
    assert float(losses.gradient_l1(edge, image)) == pytest.approx(1 / 3)


def moved(image: torch.Tensor, rows: int, cols: int, side: int) -> torch.Tensor:
    """Two neighbours cut from one image, the second farther by rows and columns."""
    near, far = image[..., :side, :side], image[..., rows : rows + side, cols : cols + side]
    return torch.stack([near, far])


@pytest.mark.parametrize("apart", [(0, 8), (24, 0), (0, 0)])
@pytest.mark.parametrize("palette", [True, False])
def test_neighbours_that_paint_shared_ground_alike_do_not_disagree(apart, palette):
    image = torch.randn(5, 64, 64)
    output = torch.cat([moved(torch.randn(5, 64, 64), *apart, 32), moved(image, *apart, 32)])
    found = losses.overlap_disagreement(output, apart, palette=palette, step=0)
    assert float(found) == pytest.approx(0, abs=1e-9)
    wrong = losses.overlap_disagreement(output, (apart[0] + 2, apart[1]), palette=palette, step=0)
    assert float(wrong) > 0.1


def test_the_disagreement_of_neighbours_is_the_squared_difference_over_their_ground():
    output = torch.zeros(2, 2, 16, 16)
    output[1, 0, :, :12] = 3.0  # where the ground is shared
    output[1, :, :, 12:] = 99.0  # where it is not
    found = losses.overlap_disagreement(output, (0, 4), palette=False, step=0)
    assert float(found) == pytest.approx(9)
    share = float(torch.tensor([3.0, 0.0]).softmax(0)[0])
    found = losses.overlap_disagreement(output, (0, 4), palette=True, step=0)
    assert float(found) == pytest.approx(2 * (share - 0.5) ** 2)


@pytest.mark.parametrize("apart", [(0, 4), (8, 0)])
def test_four_steps_look_at_every_pixel_of_the_shared_ground(apart):
    """At the same pixels in every step a network learns to make those unlike their neighbours."""
    output = torch.randn(2, 3, 16, 16, requires_grad=True)
    for step in range(4):
        losses.overlap_disagreement(output, apart, palette=True, step=step).backward()
    rows, cols = apart
    looked_at = output.grad.abs().amax(1) > 0
    assert looked_at[0, rows:, cols:].all() and looked_at[1, : 16 - rows, : 16 - cols].all()
    assert int(looked_at.sum()) == 2 * (16 - rows) * (16 - cols)


def test_classes_are_the_nearest_colours_and_far_ones_are_ignored():
    pixels = torch.tensor([(230, 230, 220), (170, 200, 250), (252, 252, 252), (90, 90, 90)])
    marked = ClassColours(CLASSES, CPU).mark(pixels.byte()[None])
    assert known_classes(marked).tolist() == [[0, 1, 2, IGNORED]]
    assert nearest_classes(marked).tolist() == [[0, 1, 2, 0]]


@pytest.mark.parametrize("count", [1, 20, MOST_CLASSES])
def test_a_class_is_the_first_of_the_nearest_and_far_beyond_24_levels(count):
    random = np.random.default_rng(count)
    palette = random.integers(0, 64, (count, 3)) * 4 + [0, 1, 1]  # many pixels are as near to two
    classes = [PaletteClass(name=str(i), colour=tuple(c)) for i, c in enumerate(palette.tolist())]
    pixels = random.integers(0, 256, (20_000, 3), dtype=np.uint8)
    pixels[:10_000] = (palette[random.integers(count, size=10_000)] + pixels[:10_000] // 5).clip(
        0, 255
    )
    # A colour is known to seven bits, its even level and the next: it lies between them.
    distances = np.abs((pixels[:, None] | 1).astype(int) - palette).max(2)
    marked = ClassColours(classes, CPU).mark(torch.from_numpy(pixels))
    nearest, far = distances.argmin(1), distances.min(1) > 24
    assert 0.05 < far.mean() < 0.95
    assert_array_equal(nearest_classes(marked), nearest)
    assert_array_equal(known_classes(marked), np.where(far, IGNORED, nearest))


def test_painted_classes_are_read_back_and_sure_logits_expect_their_colour():
    colours = ClassColours(CLASSES, CPU)
    classes = torch.tensor([[[0, 1], [2, 1]]])
    painted = colours.paint(classes)
    logits = 50 * nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
    pixels = ((painted + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    assert torch.equal(colours.mark(pixels), classes.byte())
    assert torch.equal(colours.most_likely_colour(logits), painted)
    assert torch.allclose(colours.expected_colour(logits), painted, atol=1e-5)


def test_class_weights_favour_rare_classes_and_average_to_one():
    shares = torch.tensor([0.9, 0.0999, 0.0001], dtype=torch.float64)
    weights = class_weights(shares, 0.4).double()
    assert float((weights * shares).sum()) == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx((0.9 / 0.0999) ** 0.4)
    assert weights[2] / weights[0] == pytest.approx((0.9 / 0.001) ** 0.4)  # counted as 1/1000


def test_shares_count_only_pixels_that_have_a_class():
    pixels = torch.tensor([[232, 228, 224]] * 3 + [[255, 255, 255]] + [[0, 0, 0]] * 6).byte()
    colours = ClassColours(CLASSES, CPU)
    assert colours.shares(colours.mark(pixels)).tolist() == [0.75, 0, 0.25]


@pytest.mark.parametrize(
    ("schedule", "done", "factor"),
    [("constant", 0.9, 1), ("linear", 0.25, 0.75), ("linear", 1.5, 0), ("half-linear", 0.5, 1),
     ("half-linear", 0.75, 0.5), ("cosine", 0.5, 0.5), ("cosine", 1, 0)],
)  # fmt: skip
def test_schedules_are_their_formulas(schedule, done, factor):
    assert rate_factor(schedule, done) == pytest.approx(factor)


def test_warming_up_rises_and_then_leaves_the_schedule_alone():
    rates = [rate_factor("constant", done, warm_up=0.1) for done in (0, 0.05, 0.1, 0.5)]
    assert rates == pytest.approx([0.01, 0.5, 1, 1])
