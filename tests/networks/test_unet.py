import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tilemapper.networks.build import build_generator


def parameters(network):
    return sum(tensor.numel() for tensor in network.parameters())


@pytest.mark.parametrize(("depth", "size"), [(7, 128), (8, 256), (9, 512)])
def test_depths_7_8_9_reach_one_pixel_at_128_256_512_and_come_back(depth, size):
    network = build_generator("unet", {"width": 1, "depth": depth}, 3).eval()
    seen = []
    network.downs[-1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape[2:]))
    out = network(torch.zeros(1, 3, size, size))
    assert seen == [(1, 1)]
    assert out.shape == (1, 3, size, size)


def test_the_default_is_the_papers_network_by_parameters_and_arithmetic():
    with torch.device("meta"):
        network = build_generator("unet", {}, 3)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(2, 3, 256, 256))
    assert parameters(network) == pytest.approx(54.41e6, abs=0.01e6)
    assert counter.get_total_flops() / 2 / 2 == pytest.approx(6.05e9, abs=0.01e9)


@pytest.mark.parametrize(("width", "millions"), [(48, 30.6), (32, 13.6)])
def test_narrower_widths_have_the_known_parameters(width, millions):
    with torch.device("meta"):
        network = build_generator("unet", {"width": width}, 3)
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=0.05)


def test_first_innermost_and_last_convolution_have_a_bias_and_no_norm_all_others_the_reverse():
    network = build_generator("unet", {"width": 2}, 3)
    bare = [network.downs[0], network.downs[-1], network.head]
    normed = [*network.downs[1:-1], *network.ups]
    assert all(m.conv.bias is not None and isinstance(m.norm, nn.Identity) for m in bare)
    assert all(m.conv.bias is None and isinstance(m.norm, nn.BatchNorm2d) for m in normed)


@pytest.mark.parametrize(
    ("levels", "depth", "places"),
    [("inner", 8, [0, 1, 2]), ("middle", 8, [1, 2, 3]), ("middle", 7, [1, 2])],
)
def test_dropout_sits_on_the_named_levels_and_sleeps_in_eval_mode(levels, depth, places):
    arguments = {"width": 2, "depth": depth, "dropout_levels": levels}
    network = build_generator("unet", arguments, 3)
    found = [k for k, drop in enumerate(network.drops) if isinstance(drop, nn.Dropout)]
    assert found == places
    network.eval()
    image = torch.randn(1, 3, 2**depth, 2**depth)
    assert torch.equal(network(image), network(image))


def test_a_palette_head_gives_unbounded_logits_of_k_classes_and_an_rgb_head_tanh():
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    logits = build_generator("unet", {"width": 2}, 15)
    with torch.no_grad():
        logits.head.conv.bias.fill_(50.0)
    assert logits.eval()(image).min() > 1
    assert logits(image).shape == (1, 15, 256, 256)
    colours = build_generator("unet", {"width": 2}, 3).eval()(image)
    assert colours.abs().max() <= 1
    three_classes = build_generator("unet", {"width": 2}, 3, head="palette")
    assert isinstance(three_classes.ending, nn.Identity)


def test_resize_convolutions_replace_every_transposed_one():
    network = build_generator("unet", {"width": 2, "upsample": "resize"}, 3)
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in network.modules())
    assert network.eval()(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
def test_channels_last_goes_in_and_comes_out(upsample):
    network = build_generator("unet", {"width": 4, "upsample": upsample}, 3).eval()
    network = network.to(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert network(image).is_contiguous(memory_format=torch.channels_last)
