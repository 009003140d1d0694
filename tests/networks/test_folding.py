import copy

import pytest
import torch
from torch import nn

from tests.networks.foreign import randomise
from tilemapper.networks.build import build_generator
from tilemapper.networks.folding import fold_norms
from tilemapper.networks.layers import doubling

NETWORKS = [
    ("unet", {"width": 4, "depth": 6}),
    ("unet", {"width": 4, "depth": 6, "upsample": "resize", "padding": "reflect", "skip": "leaky"}),
    ("residual", {"width": 4}),
    ("residual", {"width": 4, "stride": 32}),
    ("efficientnet", {"width": 4}),
    ("resnet", {"width": 4, "norm": "batch", "blocks": 2}),
    ("resnet", {"width": 4, "norm": "batch", "blocks": 2, "upsample": "resize"}),
]


@pytest.mark.parametrize(("architecture", "arguments"), NETWORKS)
@pytest.mark.parametrize("channels", [3, 5])
def test_folding_leaves_the_function_and_takes_every_batch_norm(architecture, arguments, channels):
    network = randomise(build_generator(architecture, arguments, channels)).double().eval()
    folded = fold_norms(network)
    image = torch.rand(2, 3, 64, 64, dtype=torch.double) * 2 - 1
    with torch.inference_mode():
        wanted = network(image)
        assert wanted.std() > 1e-3  # a dead network would prove nothing
        # float64: what is left is rounding, so that any wrong term would show.
        torch.testing.assert_close(folded(image), wanted, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any(getattr(m, "resize", False) for m in folded.modules())


def test_folding_in_float32_stays_within_its_rounding():
    network = randomise(build_generator("unet", {"width": 8}, 3)).eval()
    image = torch.rand(2, 3, 256, 256) * 2 - 1
    with torch.inference_mode():
        assert (fold_norms(network)(image) - network(image)).abs().max() < 1e-4


def test_folding_copies_and_leaves_the_given_network_as_it_was():
    network = build_generator("unet", {"width": 2}, 3).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    folded = fold_norms(network)
    assert network.training
    assert not folded.training
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_synchronised_batch_norms_fold_too():
    network = randomise(build_generator("unet", {"width": 2, "depth": 4}, 3)).eval()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    image = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(fold_norms(synchronised)(image), fold_norms(network)(image))
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in fold_norms(synchronised).modules())


def test_instance_norms_stay_since_they_depend_on_the_image():
    folded = fold_norms(build_generator("resnet", {"width": 2, "blocks": 1}, 3))
    assert any(isinstance(m, nn.InstanceNorm2d) for m in folded.modules())


def test_a_merged_resize_convolution_is_the_same_at_edges_and_corners_too():
    layer = randomise(doubling(3, 5, upsample="resize")).double().eval()
    merged = fold_norms(layer)
    assert isinstance(merged.conv, nn.ConvTranspose2d)
    for height, width in ((1, 1), (1, 4), (5, 3)):
        image = torch.randn(1, 3, height, width, dtype=torch.double)
        torch.testing.assert_close(merged(image), layer(image), rtol=1e-12, atol=1e-12)
