from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import open_model
from tilemapper.training import calibration
from tilemapper.training.calibration import best_shift, calibrate_classes, shift_logits
from tilemapper.training.run import train
from tilemapper.training.task import Limits, Stopped


def test_a_class_that_wins_too_often_is_held_back_and_no_other():
    random = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (20_000,), generator=random)
    logits = torch.randn(len(classes), 3, generator=random)
    logits[torch.arange(len(classes)), classes] += 2
    fair = best_shift(logits, classes, torch.tensor([2.0, 2.0, 2.0]))
    assert torch.equal(fair, torch.zeros(3))
    logits[:, 1] += 2
    shift = best_shift(logits, classes, torch.tensor([2.0, 2.0, 2.0]))
    assert shift.tolist() == [0, -2, 0]
    held = best_shift(logits, classes, torch.tensor([2.0, 1.0, 2.0]))
    assert held.tolist() == [0, -1, 0]  # never by more than it may be


@pytest.mark.parametrize(
    ("asked", "looks", "trials"), [(1, 0, 0), (3, 2, 0), (4, 3, 1), (6, 3, 11)]
)
def test_a_stop_ends_it_before_the_next_batch_or_class(monkeypatch, asked, looks, trials):
    done = {"looks": 0, "trials": 0, "asked": 0}

    def counted(name, result):
        def call(*_):
            done[name] += 1
            return result()

        return call

    seen = torch.zeros(9, 3), torch.zeros(9, dtype=torch.int64)
    monkeypatch.setattr(calibration, "_look", counted("looks", lambda: seen))
    monkeypatch.setattr(calibration, "_ious", counted("trials", lambda: torch.zeros(3)))
    limits = Limits(stop=counted("asked", lambda: done["asked"] == asked))
    colours = SimpleNamespace(classes=[SimpleNamespace(name=name) for name in "abc"])
    with pytest.raises(Stopped):
        calibrate_classes(None, None, colours, torch.tensor([1.0, 2, 3]), 3, check=limits.check)
    # A class is tried with each of five shares, after one look at how it is without.
    assert (done["looks"], done["trials"]) == (looks, trials)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("unet", {"width": 4, "depth": 4}),
        ("unet", {"width": 4, "depth": 4, "upsample": "resize"}),
        ("residual", {"width": 4}),
        ("resnet", {"width": 4, "blocks": 1}),
    ],
)
def test_a_shift_reaches_the_logits_of_every_architecture(architecture, arguments):
    generator = build_generator(architecture, arguments, 5, "palette").eval()
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    before = generator(x)
    shift = torch.tensor([0.0, -1.0, 0.5, 0.0, 2.0])
    shift_logits(generator, shift)
    assert torch.allclose(generator(x) - before, shift[:, None, None].expand(5, 32, 32), atol=1e-5)


def test_an_export_calibrates_and_says_so(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", 12)
    settings = {**TINY, "trainer.steps": "30", "trainer.learning_rate": "3e-3"}
    settings |= {"losses.gan": "none", "losses.class_power": "1.0"}
    plain = train(pairs, tmp_path / "plain", settings=settings)
    settings |= {"trainer.calibration_batches": "4"}
    held = train(pairs, tmp_path / "held", settings=settings)
    models = [open_model(run.model) for run in (plain, held)]
    assert "logits lowered after training: " in models[1].card.recipe
    assert "lowered" not in models[0].card.recipe
    a, b = (model.generator().head.conv.bias.detach().numpy() for model in models)
    assert (b <= a).all() and (b < a).any()
