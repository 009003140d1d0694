import pytest
import torch
from torch import nn

from tilemapper.networks.build import build_discriminator
from tilemapper.networks.patchgan import receptive_field

FIELDS = [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)]


@pytest.mark.parametrize(("n_layers", "field"), FIELDS)
def test_the_receptive_field_is_the_known_one(n_layers, field):
    assert receptive_field(n_layers) == field


@pytest.mark.parametrize(("n_layers", "field"), FIELDS)
def test_one_logit_sees_exactly_its_receptive_field(n_layers, field):
    arguments = {"width": 1, "bands": 1, "n_layers": n_layers, "norm": "none"}
    network = build_discriminator(arguments).double()
    for layer in network.layers:
        nn.init.constant_(layer.conv.weight, 0.3)
    image = torch.ones(1, 1, 448, 448, dtype=torch.double, requires_grad=True)
    [verdict] = network(image)
    middle = verdict.logits.shape[2] // 2
    verdict.logits[0, 0, middle, middle].backward()
    seen = image.grad[0, 0].nonzero()
    spread = seen.max(dim=0).values - seen.min(dim=0).values + 1
    assert spread.tolist() == [field, field]


def test_the_default_is_the_papers_discriminator():
    with torch.device("meta"):
        network = build_discriminator({})
        [verdict] = network(torch.zeros(2, 6, 256, 256))
    assert verdict.logits.shape == (2, 1, 30, 30)
    assert sum(t.numel() for t in network.parameters()) == pytest.approx(2.77e6, abs=0.01e6)
    assert [f.shape[1] for f in verdict.features] == [64, 128, 256, 512]


def test_two_scales_judge_the_image_and_its_half_with_weights_of_their_own():
    network = build_discriminator({"width": 2, "scales": 2})
    whole, reduced = network(torch.randn(2, 6, 256, 256))
    assert whole.logits.shape[2:] == (30, 30)
    assert reduced.logits.shape[2:] == (14, 14)
    first, second = (scale.layers[0].conv.weight for scale in (network.whole, network.reduced))
    assert not torch.equal(first, second)


def test_spectral_norm_bounds_the_gain_of_every_convolution():
    network = build_discriminator({"width": 4, "spectral": True, "norm": "none"})
    for _ in range(30):  # power iteration converges with the forward passes
        network(torch.randn(1, 6, 64, 64))
    network.eval()
    for layer in network.layers:
        gain = torch.linalg.matrix_norm(layer.conv.weight.flatten(1), ord=2)
        assert gain.item() == pytest.approx(1.0, abs=0.05)


def test_features_carry_gradients_for_feature_matching():
    network = build_discriminator({"width": 2})
    image = torch.randn(1, 6, 64, 64, requires_grad=True)
    [verdict] = network(image)
    sum(feature.abs().mean() for feature in verdict.features).backward()
    assert image.grad.abs().sum() > 0
