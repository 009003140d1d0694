from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tilemapper.training.optimisers import InOrderAdam, InOrderAdamW

KINDS = [(InOrderAdam, torch.optim.Adam), (InOrderAdamW, torch.optim.AdamW)]
LAST = torch.channels_last
OPTIONS = {"lr": 0.01, "weight_decay": 0.1, "fused": True}


def made(memory_format: torch.memory_format) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    kernel = torch.randn(6, 5, 3, 3, generator=random).contiguous(memory_format=memory_format)
    return [nn.Parameter(kernel), nn.Parameter(torch.randn(6, generator=random))]


def descend(optimiser: torch.optim.Optimizer, weights: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for weight in weights:
            drawn = torch.randn(weight.shape, generator=random)
            weight.grad = torch.empty_like(weight).copy_(drawn)
        optimiser.step()


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
def test_steps_and_state_are_those_of_torch_to_the_bit(ours, theirs):
    found, true = made(LAST), made(LAST)
    optimisers = ours(found, **OPTIONS), theirs(true, **OPTIONS)
    for optimiser, weights in zip(optimisers, (found, true), strict=True):
        descend(optimiser, weights, range(3))
    for a, b in zip(found, true, strict=True):
        assert torch.equal(a, b) and torch.equal(a.grad, b.grad)
        assert a.stride() == b.stride()
    a, b = (o.state_dict()["state"][0] for o in optimisers)
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(a[name], b[name]) and a[name].shape == (6, 5, 3, 3)
    assert not optimisers[0].state_dict()["state"].keys() - {0, 1}


@pytest.mark.parametrize(("ours", "_"), KINDS)
@pytest.mark.parametrize("before", [torch.contiguous_format, LAST])
def test_moments_that_lie_otherwise_than_their_weights_go_to_the_right_ones(ours, _, before):
    """torch's own goes by the place in memory; a run resumed in another memory format met that."""
    after = torch.contiguous_format if before is LAST else LAST
    straight, resumed = made(before), made(after)
    first = ours(straight, **OPTIONS)
    descend(first, straight, range(2))
    with torch.no_grad():
        for a, b in zip(resumed, straight, strict=True):
            a.copy_(b)
    second = ours(resumed, **OPTIONS)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    descend(first, straight, range(2, 4))
    descend(second, resumed, range(2, 4))
    for a, b in zip(resumed, straight, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_a_step_that_fails_leaves_the_weights_as_they_lay(monkeypatch):
    weights = made(LAST)
    optimiser = InOrderAdam(weights, **OPTIONS)
    descend(optimiser, weights, range(1))
    before = weights[0].detach().clone()

    def fails(*_args, **_more):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.Adam, "step", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        optimiser.step()
    assert torch.equal(weights[0], before) and weights[0].is_contiguous(memory_format=LAST)
    assert optimiser.state[weights[0]]["exp_avg"].shape == weights[0].grad.shape == before.shape
