import time

import pytest
import torch

from tilemapper.networks.build import build_generator


def levels():
    """All 256 grey levels as the network gets them."""
    return (
        (torch.arange(256, dtype=torch.float32) / 127.5 - 1).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    )


def back(values):
    return ((values + 1) * 127.5).round().to(torch.uint8)


def test_identity_gives_every_grey_level_back():
    out = build_generator("identity", {}, 3)(levels())
    assert torch.equal(out, levels())
    assert back(out)[0, 0].flatten().tolist() == list(range(256))


def test_identity_sleeps_as_long_as_told():
    network = build_generator("identity", {"sleep_s": 0.05}, 3)
    start = time.perf_counter()
    network(levels())
    assert time.perf_counter() - start >= 0.05


@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
def test_constant_gives_its_grey_level_exactly(value):
    out = build_generator("constant", {"value": value}, 3)(levels())
    assert out.shape == (2, 3, 16, 16)
    assert back(out).unique().tolist() == [value]


def test_constant_with_a_palette_names_its_class():
    out = build_generator("constant", {"value": 4}, 7)(levels())
    assert out.shape == (2, 7, 16, 16)
    assert out.argmax(dim=1).unique().tolist() == [4]


def test_identity_with_a_palette_gives_k_logits():
    assert build_generator("identity", {}, 7)(levels()).shape == (2, 7, 16, 16)
