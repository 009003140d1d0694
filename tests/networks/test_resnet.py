import pytest
import torch
from torch import nn

from tilemapper.networks.build import build_generator


def test_the_default_is_cyclegans_nine_blocks_with_instance_norm():
    with torch.device("meta"):
        network = build_generator("resnet", {}, 3)
    assert len(network.blocks) == 9
    kinds = {type(m) for m in network.modules() if "Norm2d" in type(m).__name__}
    assert kinds == {nn.InstanceNorm2d}
    # 11.378 million in the reference, whose biases before a norm have no effect and are not here.
    assert sum(t.numel() for t in network.parameters()) / 1e6 == pytest.approx(11.37, abs=0.01)


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
def test_the_output_has_the_size_of_the_input(upsample):
    arguments = {"width": 2, "blocks": 1, "upsample": upsample}
    network = build_generator("resnet", arguments, 3)
    assert network(torch.zeros(1, 3, 64, 36)).shape == (1, 3, 64, 36)
