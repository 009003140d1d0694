"""Packed convolutions: the same bits, or the network as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.networks.foreign import randomise
from tilemapper.networks.build import build_generator
from tilemapper.networks.folding import fold_norms
from tilemapper.render import packing
from tilemapper.render.packing import PackedConv, packed_for_cpu


def network(dtype: torch.dtype, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    built = build_generator("unet", {"width": 4, "depth": 5, **arguments}, 3)
    return fold_norms(built).to(dtype).to(memory_format=torch.channels_last)


def batch(dtype: torch.dtype, count: int = 3, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return noise.to(dtype, memory_format=torch.channels_last)


def convolutions(of: nn.Module) -> list[nn.Module]:
    return [m for m in of.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_packing_changes_no_bit(dtype):
    eager = network(dtype)
    packed = packed_for_cpu(copy.deepcopy(eager), batch(dtype))
    assert not convolutions(packed)
    for seed in range(3):
        given = batch(dtype, seed=seed)
        assert torch.equal(packed(given), eager(given))


@torch.inference_mode()
def test_another_batch_size_still_computes(models):
    eager = network(torch.float32)
    packed = packed_for_cpu(copy.deepcopy(eager), batch(torch.float32))
    one = batch(torch.float32, count=1, seed=5)
    assert torch.allclose(packed(one), eager(one), atol=1e-6)


@torch.inference_mode()
def test_reflected_padding_stays_with_pytorch():
    given = batch(torch.float32)
    eager = network(torch.float32, padding="reflect")
    wanted = eager(given)
    packed = packed_for_cpu(eager, given)
    assert convolutions(packed)
    assert any(isinstance(module, PackedConv) for module in packed.modules())
    assert torch.equal(packed(given), wanted)


def test_without_the_operators_nothing_changes(monkeypatch):
    monkeypatch.setattr(packing, "_OPERATORS", ("_no_such_operator",))
    eager = network(torch.float32)
    assert packed_for_cpu(eager, batch(torch.float32)) is eager


def test_other_bits_are_refused(monkeypatch):
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    eager = network(torch.float32)
    assert packed_for_cpu(eager, batch(torch.float32)) is eager


def test_operators_that_refuse_leave_the_network_as_it_was(monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(packing, "_replaced", refuse)
    eager = network(torch.float32)
    assert packed_for_cpu(eager, batch(torch.float32)) is eager


class Forked(nn.Module):
    """One convolution whose values are wanted with and without their ReLU, and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(functional.relu(x) - x)


def fused(of: nn.Module, activation: str) -> int:
    return sum(m.activation[0] == activation for m in of.modules() if isinstance(m, PackedConv))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_relu_is_taken_into_its_convolution_and_changes_no_bit(dtype):
    torch.manual_seed(0)
    arguments = {"width": 4, "stride": 16, "blocks": 1, "bottom_blocks": 1}
    built = fold_norms(build_generator("residual", arguments, 3)).to(dtype)
    eager = built.to(memory_format=torch.channels_last)
    packed = packed_for_cpu(copy.deepcopy(eager), batch(dtype))
    assert not convolutions(packed)
    # All but the last of each residual block, whose sum has the ReLU, and the head.
    blocks = sum(type(m).__name__ == "ResidualBlock" for m in eager.modules())
    assert fused(packed, "relu") == len(convolutions(eager)) - blocks - 1
    for seed in range(3):
        given = batch(dtype, seed=seed)
        with packing._several_threads():  # on one PyTorch has kernels of its own
            assert torch.equal(packed(given), eager(given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_relu6_is_taken_into_its_convolution_and_changes_no_bit(dtype):
    built = fold_norms(randomise(build_generator("efficientnet", {"width": 4}, 3)).eval()).to(dtype)
    eager = built.to(memory_format=torch.channels_last)
    packed = packed_for_cpu(copy.deepcopy(eager), batch(dtype))
    assert not convolutions(packed)
    # All of the encoder but what each of its blocks ends in.
    blocks = sum(type(m).__name__ == "InvertedBlock" for m in eager.modules())
    assert fused(packed, "hardtanh") == len(convolutions(eager.encoder)) - blocks
    given = batch(dtype, seed=1)
    with packing._several_threads():  # on one PyTorch has kernels of its own
        assert torch.equal(packed(given), eager(given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("residual", {"width": 4, "stride": 16, "blocks": 1, "bottom_blocks": 1}),
        ("efficientnet", {"width": 4}),
    ],
)
@torch.inference_mode()
def test_neither_cores_nor_batch_decide_a_bit(dtype, architecture, arguments):
    """PyTorch itself computes 1 x 1 convolutions in float32 otherwise on one thread."""
    torch.manual_seed(0)
    built = fold_norms(build_generator(architecture, arguments, 3)).to(dtype)
    eager = built.to(memory_format=torch.channels_last)
    assert any(conv.kernel_size == (1, 1) for conv in convolutions(eager))
    tiles, before = batch(dtype, count=16), torch.get_num_threads()
    found = []
    try:
        for threads, size in ((1, 4), (2, 4), (1, 16), (1, 3)):
            torch.set_num_threads(threads)
            packed = packed_for_cpu(copy.deepcopy(eager), tiles[:size])
            assert torch.get_num_threads() == threads
            torch.set_num_threads(1)  # as every lane does
            found.append(torch.cat([packed(part) for part in tiles.split(size)]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@torch.inference_mode()
def test_a_relu_beside_another_reader_stays_where_it_is():
    torch.manual_seed(0)
    eager = Forked().to(memory_format=torch.channels_last)
    given = batch(torch.float32)
    packed = packed_for_cpu(copy.deepcopy(eager), given)
    assert not convolutions(packed)
    assert fused(packed, "relu") == 0
    assert torch.equal(packed(given), eager(given))


class Relu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x)


@torch.inference_mode()
def test_where_the_relu_gives_other_bits_packing_alone_stays(monkeypatch):
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(3, 4, 3), Relu()).to(memory_format=torch.channels_last)
    given = batch(torch.float32)
    monkeypatch.setitem(packing._ACTIVATIONS, functional.relu, ("tanh", [], ""))
    packed = packed_for_cpu(copy.deepcopy(eager), given)
    assert not convolutions(packed)
    assert fused(packed, "relu") == 0
    assert torch.equal(packed(given), eager(given))
