from pathlib import Path

import pytest
import torch
from torch import nn

from tests.networks.foreign import EfficientNetLite, randomise
from tilemapper.errors import ModelError
from tilemapper.networks.build import build_generator
from tilemapper.networks.efficientnet import Encoder
from tilemapper.networks.pretrained import read_encoder


@pytest.fixture(scope="module")
def published():
    return randomise(EfficientNetLite()).eval()


def test_the_output_has_the_size_and_the_features_their_strides():
    network = build_generator("efficientnet", {"width": 4}, 5).eval()
    image = torch.zeros(1, 3, 64, 96)
    assert network(image).shape == (1, 5, 64, 96)
    sizes = [(f.shape[1], f.shape[2]) for f in network.encoder(image)]
    assert sizes == [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)]


def test_every_parameter_takes_part():
    network = build_generator("efficientnet", {"width": 4}, 3)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_a_line_of_one_pixel_is_seen_before_the_side_is_halved():
    """The four pixels of a group reach the output by weights of their own, without the encoder."""
    network = build_generator("efficientnet", {"width": 4}, 3).eval()
    nn.init.zeros_(network.encoder.stem.norm.weight)  # nothing gets into the encoder
    image = torch.zeros(4, 3, 64, 64)
    image[range(4), :, [32, 32, 33, 33], [32, 33, 32, 33]] = 1.0
    with torch.inference_mode():
        found = network(image)
    assert min((found[i] - found[j]).abs().max() for i in range(4) for j in range(i)) > 1e-6


def test_a_published_encoder_computes_the_same_here(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "lite0.pth")
    encoder = Encoder(3).eval()
    encoder.load_state_dict(read_encoder(tmp_path / "lite0.pth"))
    image = torch.rand(1, 3, 96, 64) * 2 - 1
    with torch.inference_mode():
        wanted = published(image)
        assert wanted.std() > 0.05  # not dead
        torch.testing.assert_close(encoder(image)[-1], wanted, rtol=1e-5, atol=1e-5)


def test_an_encoder_is_found_in_the_home_folder(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(published.state_dict(), tmp_path / "lite0.pth")
    assert read_encoder(Path("~/lite0.pth"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_blocks.3._bn1.running_var": None}, r"no EfficientNet-Lite0 .* misses _blocks.3._bn1.r"),
        # An EfficientNet-B0 has all layers of a Lite0, and these.
        ({"_blocks.0._se_reduce.weight": torch.zeros(8, 32, 1, 1)}, r"has _blocks.0._se_reduce.w"),
        ({"_conv_stem.weight": torch.zeros(40, 3, 3, 3)}, r"stem.conv.weight is \(40, 3, 3, 3\)"),
        ({"_bn0.bias": torch.full((32,), float("nan"))}, "stem.norm.bias holds values that are"),
    ],
)
def test_another_network_is_one_line(published, tmp_path, change, words):
    state = {k: v for k, v in (published.state_dict() | change).items() if v is not None}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=f"other.pth: .*{words}") as caught:
        read_encoder(tmp_path / "other.pth")
    assert "\n" not in str(caught.value)
