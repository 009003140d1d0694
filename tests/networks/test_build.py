import pytest
import torch

from tilemapper.errors import ModelError
from tilemapper.networks.build import build_discriminator, build_generator


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("unett", {}, "'unett'.*did you mean unet"),
        ("unet", {"wdith": 4}, "unknown key wdith.*did you mean width"),
        ("unet", {"width": 0}, "width is 0"),
        ("unet", {"width": 10**12}, "width is 1000000000000"),
        ("unet", {"width": "64"}, "width is '64'"),
        ("unet", {"width": True}, "width is True"),
        ("unet", {"upsample": "bilinear"}, "upsample is 'bilinear'"),
        ("unet", {"dropout": float("nan")}, "dropout is nan"),
        ("residual", {"stride": 8}, "stride is 8"),
        ("efficientnet", {"width": 1}, "width is 1"),
        ("resnet", {"blocks": 10**9}, "blocks is 1000000000"),
        ("constant", {"value": 256}, "value is 256"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(architecture, arguments, message):
    with pytest.raises(ModelError, match=message) as caught:
        build_generator(architecture, arguments, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [0, 257])
def test_absurd_numbers_of_channels_are_refused(channels):
    with pytest.raises(ModelError, match="output channels"):
        build_generator("unet", {"width": 1}, channels)


def test_a_wrong_discriminator_argument_is_named():
    with pytest.raises(ModelError, match="n_layers is 6"):
        build_discriminator({"n_layers": 6})


def test_weights_start_as_in_the_paper():
    torch.manual_seed(0)
    network = build_generator("unet", {"width": 16}, 3)
    weight = network.downs[3].conv.weight
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    gains = torch.cat([layer.norm.weight for layer in network.downs[1:-1]])
    assert gains.mean().item() == pytest.approx(1, abs=0.01)
    assert gains.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.head.conv.bias.abs().sum() == 0


def test_the_same_seed_draws_the_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_generator("unet", {"width": 2}, 3).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
