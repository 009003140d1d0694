import pytest
import torch
from torch import nn

from tilemapper.networks.build import build_generator


@pytest.mark.parametrize("stride", [16, 32])
def test_the_lowest_level_has_the_stride_and_the_output_the_size(stride):
    network = build_generator("residual", {"width": 2, "stride": stride}, 5).eval()
    seen = []
    network.levels[-1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape[2]))
    assert network(torch.zeros(1, 3, 128, 192)).shape == (1, 5, 128, 192)
    assert seen == [128 // stride]


def test_the_default_is_the_compact_candidate():
    with torch.device("meta"):
        network = build_generator("residual", {}, 3)
    assert sum(t.numel() for t in network.parameters()) / 1e6 == pytest.approx(6.9, abs=0.3)


def test_there_is_no_transposed_convolution():
    network = build_generator("residual", {"width": 2}, 3)
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in network.modules())


def test_the_four_pixels_of_a_group_start_with_the_same_weights():
    out = build_generator("residual", {"width": 4}, 3).eval()(torch.randn(1, 3, 64, 64))
    groups = out.unflatten(3, (32, 2)).unflatten(2, (32, 2))
    assert torch.allclose(groups, groups[:, :, :, :1, :, :1].expand_as(groups), atol=1e-6)


def test_every_parameter_takes_part():
    network = build_generator("residual", {"width": 2}, 3)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
