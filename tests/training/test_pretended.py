"""What a GPU would refuse or round, without one: whole runs on a pretended device, and figures."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.pretended import DEVICE, Pretended
from tests.training.synthetic_pairs import TINY, stopped_after, write_pairs
from tilemapper.networks.model import ModelCard
from tilemapper.training.feed import Feed
from tilemapper.training.heldout import generate
from tilemapper.training.prediction import whole_image_predictor
from tilemapper.training.run import train

SMALL = {
    "best": {"losses.gan_from": "0.0", "data.storage": '"device"'},
    "classic": {
        "networks.generator": "unet",
        "networks.generator_arguments": '{width=4, depth=4, norm="instance_affine"}',
        "data.resize": "40",
        "data.storage": '"host"',
    },
}


@pytest.fixture
def gpu(monkeypatch):
    """A pretended device in this thread; its streams are always done."""
    asked = []

    def current_stream(device=None):
        asked.append(device)
        done = SimpleNamespace(query=lambda: True, synchronize=lambda: None)
        return SimpleNamespace(record_event=lambda: done)

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "pretended")
    # The thread that cuts patches in the host's memory would not know of the device.
    monkeypatch.setattr(Feed, "__call__", Feed.make)
    with Pretended():
        yield
    assert set(asked) == {DEVICE}  # another device's stream knows nothing of our copies


@pytest.mark.parametrize("preset", SMALL)
def test_a_run_mixes_nothing_of_the_host_with_the_device(gpu, tmp_path, preset):
    pairs, run = write_pairs(tmp_path / "pairs", 4), tmp_path / "run"
    settings = {
        **TINY,
        "data.held_out": "0.25",
        "data.resize": "0",
        "trainer.steps": "2",
        "trainer.epochs": "0",
        "trainer.minutes": "0",
        "trainer.calibration_batches": "1",
        "trainer.precise_bn_batches": "1",
        **SMALL[preset],
    }
    train(pairs, run, preset=preset, settings=settings, device="cuda", **stopped_after(1))
    result = train(pairs, run, resume=True, device="cuda")
    assert (result.step, result.finished) == (2, True)
    assert result.model is not None


class Looks(torch.nn.Identity):
    """Notes whether convolutions may round to TF32 while it computes."""

    def forward(self, x):
        """The same."""
        self.rounds = torch.backends.cudnn.allow_tf32
        return x


@pytest.mark.parametrize("before", [True, False])
def test_figures_are_of_whole_float32_and_training_keeps_its_own(monkeypatch, before):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    network, image = Looks(), np.zeros((16, 16, 3), np.uint8)
    model = SimpleNamespace(
        generator=lambda: network, card=ModelCard(name="i", architecture="identity", tile=16)
    )
    generate(network, image[None], lambda y: y, torch.device("cpu"), batch=1)
    assert not network.rounds
    network.rounds = True
    whole_image_predictor(model)(image)
    assert not network.rounds
    assert torch.backends.cudnn.allow_tf32 == before
