from __future__ import annotations

import errno
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.networks.foreign import EfficientNetLite, randomise
from tests.training.synthetic_pairs import COLOURS, TINY, make_pair, stopped_after, write_pairs
from tilemapper.api.train import train_and_report
from tilemapper.errors import (
    DeviceError,
    DiskFullError,
    JobError,
    LockedError,
    ModelError,
    OptionError,
    PairError,
    TargetError,
    TrainingError,
)
from tilemapper.networks.model import ModelCard, open_model, save_model
from tilemapper.networks.pretrained import read_encoder
from tilemapper.training import checkpoint, export, pix2pix
from tilemapper.training.assembly import make_generator, model_to_start_from, start_from
from tilemapper.training.checkpoint import read_checkpoint, write_checkpoint
from tilemapper.training.config import TrainingJob
from tilemapper.training.dataset import Dataset
from tilemapper.training.heldout import HeldOut
from tilemapper.training.jobfile import load_job
from tilemapper.training.jobtext import toml_value
from tilemapper.training.lossplot import loss_plot
from tilemapper.training.pairs import open_pairs, pack_pairs, split_pairs
from tilemapper.training.recording import read_events
from tilemapper.training.run import train
from tilemapper.training.split import digest_pairs, digest_split


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", 12)


@pytest.fixture
def drawn() -> None:
    """For tests that look at the loss plot."""


@pytest.fixture(autouse=True)
def composed(request, monkeypatch) -> None:
    """Else loss plots stay empty: to make one takes longer than a step."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("tilemapper.training.lossplot.loss_plot", lambda _events: b"")


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = read_checkpoint(run / "checkpoints" / "last.ckpt")
    groups = {**state["modules"], "average": state["average"]}
    return {f"{g}.{n}": t for g, tensors in groups.items() for n, t in (tensors or {}).items()}


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"losses.gan": '"wgan-gp"', "networks.generator_arguments": "{width=4, stride=16, "
         "blocks=1, bottom_blocks=1, dropout=0.5}", "augment.noise": "0.05"},
        {"losses.overlap_disagreement": "1.0", "augment.scale": "[0.8, 1.1]"},
        {"augment.rotation": "30"},
    ],
)  # fmt: skip
def test_interrupted_and_straight_runs_end_with_the_same_bits(pairs, tmp_path, changes):
    settings = {**TINY, "trainer.steps": "6", "losses.gan_from": "0.3", **changes}
    train(pairs, tmp_path / "straight", settings=settings)
    run = tmp_path / "stopped"
    for steps, at in ((1, 1), (3, 4)):  # before the discriminator takes part, and after
        resumed = {"resume": True} if at > 1 else {"settings": settings}
        stopped = train(pairs, run, **stopped_after(steps), **resumed)
        assert (stopped.step, stopped.finished, stopped.model) == (at, False, None)
    assert train(pairs, run, resume=True).finished
    assert_same_weights(run, tmp_path / "straight")
    steps = [e["step"] for e in read_events(run / "metrics.jsonl") if e["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_more_overlap_disagreement_weighs_the_less_neighbours_disagree(pairs, tmp_path):
    found = []
    for weight in (1e-6, 20.0):
        run = tmp_path / f"{weight:g}"
        settings = {**TINY, "trainer.steps": "40", "losses.overlap_disagreement": str(weight)}
        result = train(pairs, run, settings=settings)
        events = [e for e in read_events(run / "metrics.jsonl") if e["kind"] == "train"]
        found.append(sum(e["overlap_disagreement"] for e in events[-10:]))
    assert found[1] < 0.7 * found[0]
    assert "overlap_disagreement 20" in (result.model / "README.md").read_text()


def test_jaccard_teaches_by_itself_and_is_in_the_card(pairs, tmp_path):
    settings = {
        **TINY,
        "trainer.steps": "60",
        "trainer.learning_rate": "2e-3",
        "losses.gan": "none",
    }
    only = {"losses.cross_entropy": "0", "losses.l1": "0", "losses.jaccard": "3"}
    result = train(pairs, tmp_path / "run", preset="fast", settings={**settings, **only})
    events = [e for e in read_events(tmp_path / "run" / "metrics.jsonl") if e["kind"] == "train"]
    first, last = (sum(e["jaccard"] for e in part) / 10 for part in (events[:10], events[-10:]))
    assert last < first - 0.1
    assert events[0]["generator"] == pytest.approx(3 * events[0]["jaccard"], rel=1e-4)
    assert "jaccard 3" in (result.model / "README.md").read_text()


def test_images_without_room_for_a_turned_patch_are_refused(pairs, tmp_path):
    turned = {"augment.rotation": "45", "augment.scale": "[1.0, 1.1]"}
    settings = {**TINY, "trainer.steps": "1", **turned}
    words = "smallest image has 48 px, 50 px are needed to turn a patch of 35; set it to 0"
    with pytest.raises(JobError, match=words):
        train(pairs, tmp_path / "run", settings=settings)
    train(pairs, tmp_path / "fits", settings={**settings, "augment.scale": "[1.0, 1.03]"})


def test_without_a_compiler_a_line_says_what_compile_needs(pairs, tmp_path, monkeypatch):
    """Pretended, as torch's own takes ten seconds to fail."""
    kind = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def fail(*_args: object) -> None:
        raise kind("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(pix2pix.Pix2Pix, "step", fail)
    words = r"^trainer\.compile: torch\.compile failed \(InvalidCxx.* found\); .* set it to off$"
    with pytest.raises(DeviceError, match=words):
        train(pairs, tmp_path / "run", settings={**TINY, "trainer.steps": "1"})


def test_cyclegan_takes_unpaired_folders_and_resumes_with_its_pools(tmp_path):
    data = tmp_path / "data"
    for side, count in (("A", 5), ("B", 3)):
        (data / side).mkdir(parents=True)
        for i in range(count):
            values = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(values).save(data / side / f"{side}{i}.png")
    settings = {
        **TINY,
        "trainer.steps": "4",
        "data.resize": "0",
        "data.held_out": "0.2",
        "networks.generator": "resnet",
        "networks.generator_arguments": "{width=4, blocks=1}",
        "losses.pool": "3",
        "trainer.ema": "0.9",
    }
    straight = train(data, tmp_path / "a", preset="cyclegan", settings=settings)
    train(data, tmp_path / "b", preset="cyclegan", settings=settings, **stopped_after(2))
    train(data, tmp_path / "b", resume=True)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert open_model(straight.model).card.norm == "instance"
    for steps, change in ((6, {"losses.pool": "5"}), (8, {"augment.crop": "24"})):
        other = {"trainer.steps": str(steps), **change}
        assert train(data, tmp_path / "b", settings=other, resume=True).finished
    assert loss_plot(read_events(tmp_path / "b" / "metrics.jsonl")).startswith(b"\x89PNG")


def test_a_run_goes_on_with_the_optimiser_and_the_average_of_its_new_settings(
    pairs, tmp_path, monkeypatch
):
    settings = {**TINY, "trainer.steps": "2", "trainer.optimizer": "adam", "trainer.ema": "0"}
    train(pairs, tmp_path / "run", settings=settings, **stopped_after(1))
    groups = []
    usual = pix2pix.Pix2Pix.step

    def watched(self, batch, step, done):
        groups.append(self.optimisers["generator"].param_groups[0])
        assert self.optimisers["generator"].state  # the moments stay
        return usual(self, batch, step, done)

    monkeypatch.setattr(pix2pix.Pix2Pix, "step", watched)
    other = {"trainer.optimizer": "adamw", "trainer.betas": "[0.7, 0.8]"}
    other |= {"trainer.weight_decay": "0.3", "trainer.ema": "0.9"}
    assert train(pairs, tmp_path / "run", settings=other, resume=True).finished
    assert groups[0]["betas"] == (0.7, 0.8)
    assert (groups[0]["weight_decay"], groups[0]["decoupled_weight_decay"]) == (0.3, True)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["average"]


def test_a_run_leaves_all_that_it_promises(pairs, tmp_path, drawn):
    run = tmp_path / "run"
    settings = {**TINY, "trainer.steps": "3", "trainer.sample_every": "2", "trainer.keep": "1"}
    words = "tilemapper train pairs --out run"
    result = train_and_report(pairs, run, settings=settings, command=words)
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert names >= {
        "config.toml", "metrics.jsonl", "loss.png", "report.html", "samples/step_2.png",
        "checkpoints/last.ckpt", "checkpoints/best.ckpt", "checkpoints/step_00000003.ckpt",
        "model/model.toml", "model/README.md", "model/generator.safetensors",
    }  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in names)
    with Image.open(run / "samples" / "step_2.png") as sheet:
        assert sheet.size == (4 * 32, 32)
    page = (run / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for part in ("Held-out figures", "Losses in training", "Step 2:", "The network", "seed = 0"):
        assert part in page, part
    with Image.open(run / "loss.png") as plot:
        assert plot.width > plot.height > 100
    card = open_model(run / "model").card
    assert card.command == words
    assert card.metrics["psnr"] == pytest.approx(result.figures["psnr"], abs=1e-3)
    assert card.train_eval_gap is not None and card.tone is not None
    assert card.channels == len(card.palette) == 15
    source = open_pairs(pairs)
    digest = digest_split(source, split_pairs(source))
    assert (card.pairs_sha256, card.held_out_sha256) == (digest.pairs, digest.held_out)
    assert card.trained_sha256 == (digest_pairs(source, split_pairs(source).train),)
    output = open_model(run / "model").generator()(torch.zeros(1, 3, 32, 32))
    assert output.shape == (1, 15, 32, 32)


def test_a_card_names_what_the_model_it_began_with_has_learned_from_too(pairs, tmp_path):
    """Else `evaluate` took those for pairs that were held out."""
    sources = [open_pairs(data) for data in (pairs, write_pairs(tmp_path / "others", 4))]
    settings = {**TINY, "trainer.steps": "2"}
    first = train(tmp_path / "others", tmp_path / "first", settings=settings).model
    settings |= {"networks.init": f'"{first}"'}
    learned = tuple(digest_pairs(source, split_pairs(source).train) for source in sources)
    assert len(set(learned)) == 2
    train(pairs, tmp_path / "straight", settings=settings)
    train(pairs, tmp_path / "resumed", settings=settings, **stopped_after(1))
    shutil.rmtree(first)
    train(pairs, tmp_path / "resumed", resume=True)
    for name in ("straight", "resumed"):
        assert open_model(tmp_path / name / "model").card.trained_sha256 == learned


def test_extra_pairs_that_a_resumed_run_leaves_out_were_learned_from(pairs, tmp_path):
    extra = write_pairs(tmp_path / "extra", 2)
    settings = {**TINY, "trainer.steps": "2", "data.extra": f'[{{path="{extra}", share=0.5}}]'}
    train(pairs, tmp_path / "run", settings=settings, **stopped_after(1))
    model = train(pairs, tmp_path / "run", settings={"data.extra": "[]"}, resume=True).model
    assert model is not None
    learned = open_model(model).card.trained_sha256
    assert (len(learned), learned[1]) == (2, digest_pairs(open_pairs(extra), range(2)))


def test_a_val_folder_alone_has_nothing_to_learn_from(tmp_path):
    write_pairs(tmp_path / "pairs" / "val", 2)
    with pytest.raises(PairError, match="held-out pairs only, others are needed to learn from"):
        train(tmp_path / "pairs", tmp_path / "run", settings={**TINY, "trainer.steps": "1"})


def test_a_model_too_small_to_render_is_told_of_and_one_image_has_no_gap(pairs, tmp_path):
    """Of one crop as small as its stride the network's lowest level has one value to norm."""
    said: list[str] = []
    small = {**TINY, "trainer.steps": "1", "augment.crop": "16", "losses.gan": "none"}
    result = train(pairs, tmp_path, settings=small, notice=said.append)
    assert [line.partition(",")[0] for line in said] == ["augment.crop is 16"]
    assert open_model(result.model).card.train_eval_gap is None
    assert "None" not in (result.model / "README.md").read_text()


def test_extra_pairs_join_in(pairs, tmp_path):
    extra = write_pairs(tmp_path / "extra", 2)
    settings = {**TINY, "trainer.steps": "1", "data.extra": f'[{{path="{extra}", share=0.5}}]'}
    assert train(pairs, tmp_path / "run", settings=settings).finished
    card = open_model(tmp_path / "run" / "model").card
    assert card.trained_sha256[1:] == (digest_pairs(open_pairs(extra), range(2)),)


def test_pairs_that_overlap_the_held_out_patch_of_one_piece_of_ground_are_said(tmp_path):
    data = write_pairs(tmp_path / "pairs", 6)
    (data / "overlaps.json").write_text(json.dumps([[i, i + 1] for i in range(5)]))
    said: list[str] = []
    train(data, tmp_path / "run", settings={**TINY, "trainer.steps": "1"}, notice=said.append)
    assert [line for line in said if "pairs overlap held-out ones" in line]


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_images_that_say_that_they_are_turned_are_told_of(tmp_path, orientation):
    """Their pixels are taken as they are stored, with not a word."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    for number, (first, second) in enumerate(make_pair(n, 48) for n in range(4)):
        for side, image in (("A", first), ("B", second)):
            (tmp_path / "pairs" / side).mkdir(parents=True, exist_ok=True)
            written = exif if side == "A" else Image.Exif()
            Image.fromarray(image).save(tmp_path / "pairs" / side / f"{number}.jpg", exif=written)
    said: list[str] = []
    settings = {**TINY, "trainer.steps": "1", "networks.head": "rgb", "losses.cross_entropy": "0.0"}
    train(tmp_path / "pairs", tmp_path / "run", settings=settings, notice=said.append)
    told = [line for line in said if "to be shown turned" in line]
    assert [line[:9] for line in told] == (["3 images "] if orientation == 6 else [])


@pytest.mark.parametrize("kind", ["side by side", "folders", "npz"])
def test_extra_pairs_that_are_held_out_are_refused(pairs, tmp_path, kind):
    data, again = pairs, tmp_path / "again"
    if kind == "npz":
        data = tmp_path / "pairs.npz"
        pack_pairs(open_pairs(pairs), data)
    elif kind == "folders":
        data = tmp_path / "sides"
        for side in "AB":
            shutil.copytree(pairs, data / side)
    again.symlink_to(data)
    extra = again if kind != "npz" else data
    settings = {**TINY, "trainer.steps": "1", "data.extra": f'[{{path="{extra}", share=0.5}}]'}
    with pytest.raises(PairError, match="holds pairs that are held out"):
        train(data, tmp_path / "run", settings=settings)


def test_the_val_folder_of_extra_pairs_is_not_trained_on(pairs, tmp_path):
    extra = tmp_path / "extra"
    write_pairs(extra / "train", 2)
    write_pairs(extra / "val", 3)
    settings = {**TINY, "trainer.steps": "1", "data.extra": f'[{{path="{extra}", share=0.5}}]'}
    data = Dataset(load_job(overrides=settings), pairs, tmp_path, torch.device("cpu"))
    assert [group.count for group in data.groups] == [len(data.split.train), 2]
    assert len(data.pixels) == len(data.split.train) + 2
    shutil.rmtree(extra / "train")
    with pytest.raises(PairError, match="held-out pairs only"):
        Dataset(load_job(overrides=settings), pairs, tmp_path, torch.device("cpu"))


def test_a_run_starts_from_the_weights_of_a_model(pairs, tmp_path):
    settings = {**TINY, "trainer.steps": "2", "trainer.learning_rate": "1e-9", "trainer.ema": "0"}
    first = train(pairs, tmp_path / "first", settings={**settings, "trainer.learning_rate": "1e-3"})
    start = {"networks.init": f'"{first.model}"'}
    train(pairs, tmp_path / "second", settings={**settings, **start})
    stored = open_model(first.model).generator().state_dict()
    for name, tensor in weights(tmp_path / "second").items():
        if name.startswith("generator.") and tensor.dim() == 4:
            assert torch.allclose(tensor, stored[name.removeprefix("generator.")], atol=1e-6)
    assert (
        "started from the weights of model" in open_model(tmp_path / "second" / "model").card.recipe
    )
    train(pairs, tmp_path / "third", settings={**settings, **start}, **stopped_after(1))
    for path in first.model.iterdir():  # a resumed run needs its checkpoint only
        path.unlink()
    assert train(pairs, tmp_path / "third", resume=True).finished


def test_a_run_that_ended_before_its_first_checkpoint_starts_from_the_model_again(
    pairs, tmp_path, monkeypatch
):
    settings = {**TINY, "trainer.steps": "1", "trainer.ema": "0"}
    first = train(pairs, tmp_path / "first", settings=settings)
    settings |= {"networks.init": f'"{first.model}"', "trainer.learning_rate": "1e-9"}
    run = tmp_path / "run"

    def dies(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(pix2pix.Pix2Pix, "step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train(pairs, run, settings=settings)
    assert (run / "config.toml").exists() and not list((run / "checkpoints").iterdir())
    train(pairs, run, resume=True)
    train(pairs, tmp_path / "straight", settings=settings)
    assert_same_weights(run, tmp_path / "straight")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks.generator_arguments": "{width=8, stride=16}"}, "set the generator_arguments"),
        ({"networks.head": "rgb", "losses.cross_entropy": "0.0"}, "rgb of 3 .* is needed"),
    ],
)
def test_a_model_of_another_kind_is_no_start(pairs, tmp_path, change, words):
    settings = {**TINY, "trainer.steps": "1"}
    first = train(pairs, tmp_path / "first", settings=settings)
    start = {"networks.init": f'"{first.model}"'}
    with pytest.raises(JobError, match=words) as caught:
        train(pairs, tmp_path / "second", settings={**settings, **start, **change})
    assert "\n" not in str(caught.value)


def test_a_model_is_a_start_for_its_own_activations_alone_and_for_any_dropout(tmp_path):
    def job(arguments: str) -> TrainingJob:
        start = {"networks.init": f'"{tmp_path / "start"}"', "networks.generator": "unet"}
        changes = {"generator_arguments": f"{{width=2, depth=2{arguments}}}"}
        return load_job(preset="cyclegan", overrides={**start, **changes})

    card = ModelCard(name="start", architecture="unet", arguments={"width": 2, "depth": 2})
    saved = save_model(tmp_path / "start", card, make_generator(job("")), "")
    assert model_to_start_from(job(", dropout=0.1")) == saved
    with pytest.raises(JobError, match=r"'skip': 'leaky'.* is needed; set the generator_"):
        model_to_start_from(job(', skip="leaky"'))


def test_an_encoder_starts_from_a_published_network(pairs, tmp_path):
    published = tmp_path / "lite0.pth"
    torch.save(randomise(EfficientNetLite()).state_dict(), published)
    settings = TINY | {
        "augment.crop": "32",
        "networks.generator": "efficientnet",
        "networks.generator_arguments": "{width=2}",
        "networks.encoder": f'"{published}"',
        "trainer.steps": "2",
        "trainer.learning_rate": "1e-9",
    }
    run = tmp_path / "run"
    train(pairs, run, settings=settings, **stopped_after(1))
    wanted = read_encoder(published)
    other = {"networks.encoder": f'"{tmp_path / "other.pth"}"'}
    with pytest.raises(TrainingError, match=r"networks\.encoder was .*lite0\.pth"):
        train(pairs, run, resume=True, settings=other)  # would be told in the card
    published.unlink()  # a resumed run needs its checkpoint only
    model = train(pairs, run, resume=True).model
    for name, tensor in weights(run).items():
        if name.startswith("generator.encoder.") and tensor.dim() == 4:
            place = name.removeprefix("generator.encoder.")
            assert torch.allclose(tensor, wanted[place], atol=1e-6)
    assert model is not None
    assert "encoder started from lite0.pth; " in open_model(model).card.recipe
    with pytest.raises(ModelError, match=r"lite0\.pth: not found"):  # before a pair is read
        train(tmp_path / "no pairs", tmp_path / "new", settings=settings)


def test_what_an_encoder_was_taught_is_the_start_of_both_directions(tmp_path):
    published = tmp_path / "lite0.pth"
    torch.save(randomise(EfficientNetLite()).state_dict(), published)
    settings = {
        "augment.crop": "64",
        "networks.generator": "efficientnet",
        "networks.generator_arguments": "{width=2}",
        "networks.encoder": f'"{published}"',
    }
    job = load_job(preset="cyclegan", overrides=settings)
    there, back = make_generator(job), make_generator(job)
    start_from(there, job, backward=back)
    wanted = read_encoder(published)
    for network in (there, back):
        found = network.encoder.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_boosted_class_weighs_more(pairs, tmp_path, monkeypatch):
    seen = []
    usual = pix2pix.Pix2Pix.step

    def watched(self, batch, step, done):
        seen.append(self.class_weights)
        return usual(self, batch, step, done)

    monkeypatch.setattr(pix2pix.Pix2Pix, "step", watched)
    for name, boost in (("plain", "{}"), ("boosted", "{water=4.0}")):
        settings = {**TINY, "trainer.steps": "1", "losses.class_boost": boost}
        train(pairs, tmp_path / name, settings=settings)
    ratio = seen[1] / seen[0]
    assert ratio[2] == pytest.approx(4 * float(ratio[0]), rel=1e-5)
    with pytest.raises(JobError, match="class_boost lava: no such class"):
        train(pairs, tmp_path / "no", settings={**settings, "losses.class_boost": "{lava=2.0}"})


def test_map_to_satellite_trains_the_other_way_round(pairs, tmp_path):
    settings = {
        **TINY,
        "data.direction": "BtoA",
        "data.resize": "0",
        "trainer.epochs": "0",
        "trainer.steps": "2",
        "networks.generator_arguments": "{width=4, depth=4}",
        "networks.generator": "unet",
    }
    result = train(pairs, tmp_path / "run", preset="classic", settings=settings)
    card = open_model(result.model).card
    assert (card.direction, card.head) == ("BtoA", "rgb")
    assert card.tone.mean[0] > 180  # the source is the bright map
    assert "road_f1" not in card.metrics


def test_the_budget_ends_a_run_cleanly_and_gives_its_length(pairs, tmp_path):
    before = time.perf_counter()
    result = train(pairs, tmp_path / "run", settings=TINY, budget_minutes=0.01)
    assert result.step >= 1 and result.model is not None
    assert result.finished  # although the steps are but a part of the time
    assert time.perf_counter() - before < 200
    with pytest.raises(JobError, match="no length"):
        train(pairs, tmp_path / "other", settings=TINY)


@pytest.mark.parametrize("budget", [0, -1, math.nan, math.inf])
def test_a_budget_that_is_no_time_is_refused(pairs, tmp_path, budget):
    with pytest.raises(OptionError, match=r"budget_minutes: .* above 0"):
        train(pairs, tmp_path / "run", settings=TINY, budget_minutes=budget)
    assert not (tmp_path / "run").exists()


def test_a_run_as_long_as_its_budget_goes_on_for_what_is_left_of_it(pairs, tmp_path, monkeypatch):
    run = tmp_path / "run"
    settings = {**TINY, "trainer.evaluate_every": "1", "trainer.schedule": "linear"}
    stopped = train(pairs, run, settings=settings, budget_minutes=0.1, **stopped_after(2))
    assert not stopped.finished
    before_s = read_checkpoint(run / "checkpoints" / "last.ckpt")["elapsed_s"]
    assert 0 < before_s < 6
    shares = []
    usual = pix2pix.Pix2Pix.step

    def watched(self, batch, step, done):
        shares.append(done)
        time.sleep(0.3)  # few steps fill the time as well as many
        return usual(self, batch, step, done)

    monkeypatch.setattr(pix2pix.Pix2Pix, "step", watched)
    assert train(pairs, run, resume=True).finished
    assert before_s / 6 <= shares[0] and shares == sorted(shares)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["elapsed_s"] >= 6
    shorter = train(pairs, tmp_path / "other", settings={**settings, "trainer.minutes": "9"},
                    budget_minutes=0.005)  # fmt: skip
    assert not shorter.finished


def test_a_run_that_its_budget_stopped_ends_with_the_best_of_a_straight_one(pairs, tmp_path):
    """Its weights get worse, so those at which it is stopped would be the best of all."""
    settings = {**TINY, "trainer.steps": "4", "trainer.evaluate_every": "2",
                "trainer.best_by": "loss", "trainer.learning_rate": "1e-9"}  # fmt: skip
    worse = {"trainer.learning_rate": "0.05"}
    run = tmp_path / "run"
    stopped = train(pairs, run, settings=settings, budget_minutes=1e-9)
    assert (stopped.step, stopped.finished) == (1, False)
    assert "weights of step 1 of 1" in open_model(stopped.model).card.recipe
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["best"] is None
    resumed = train(pairs, run, settings=worse, resume=True)
    assert "weights of step 1" not in open_model(resumed.model).card.recipe
    measured = [e["step"] for e in read_events(run / "metrics.jsonl") if e["kind"] == "held_out"]
    assert measured == [1, 2, 4]


def test_a_finished_run_that_is_resumed_is_not_measured_again(pairs, tmp_path):
    settings = {**TINY, "trainer.steps": "2"}  # at whose end the rate is another than at the start
    first = train(pairs, tmp_path / "run", settings=settings)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    groups = [one["param_groups"] for one in read_checkpoint(last)["optimisers"].values()]
    again = train(pairs, tmp_path / "run", resume=True)
    assert again.finished and again.figures == pytest.approx(first.figures, nan_ok=True)
    kept = [one["param_groups"] for one in read_checkpoint(last)["optimisers"].values()]
    assert kept == groups
    kinds = [event["kind"] for event in read_events(tmp_path / "run" / "metrics.jsonl")]
    assert kinds == ["train", "train", "held_out"]


def test_the_best_weights_are_exported_as_they_were_judged_although_nothing_is_averaged_now(
    pairs, tmp_path, monkeypatch
):
    losses = itertools.count(1.0)
    monkeypatch.setattr(HeldOut, "measure", lambda *_, **_o: {"loss": next(losses)})  # worse
    run, base = tmp_path / "run", {**TINY, "trainer.best_by": "loss", "trainer.ema": "0.9"}
    train(pairs, run, settings={**base, "trainer.steps": "2", "trainer.precise_bn_batches": "0"})
    more = {"trainer.steps": "3", "trainer.ema": "0"}
    result = train(pairs, run, settings=more, resume=True)
    assert "weights of step 2 of 3" in open_model(result.model).card.recipe
    average = read_checkpoint(run / "checkpoints" / "best.ckpt")["average"]
    exported = open_model(result.model).generator().state_dict()
    for name, tensor in average.items():
        assert tensor.dim() != 4 or torch.equal(exported[name], tensor.half().float())


def test_what_is_best_at_the_end_is_written_once_and_exported_as_it_is(
    pairs, tmp_path, monkeypatch
):
    written = []
    usual = checkpoint.write_checkpoint

    def noted(path, state):
        written.append(path.name)
        usual(path, state)

    monkeypatch.setattr(checkpoint, "write_checkpoint", noted)
    monkeypatch.setattr(export, "read_checkpoint", lambda path: pytest.fail(f"{path} is read"))
    settings = {**TINY, "trainer.precise_bn_batches": "0", "trainer.checkpoint_every": "2"}
    result = train(pairs, tmp_path / "run", settings={**settings, "trainer.steps": "3"})
    assert written == ["step_00000002.ckpt", "best.ckpt"]
    exported, best = open_model(result.model).generator().state_dict(), weights(tmp_path / "run")
    assert all(torch.equal(exported[n], best[f"average.{n}"].half().float()) for n in exported
               if exported[n].dim() == 4)  # fmt: skip


def test_another_figure_finds_a_best_of_its_own(pairs, tmp_path):
    settings = {**TINY, "trainer.steps": "1"}
    train(pairs, tmp_path / "run", settings=settings)
    train(pairs, tmp_path / "run", settings={"steps": "2", "best_by": "ssim"}, resume=True)
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert best["step"] == 2 and best["best"] < 1  # PSNR is far above it


def test_a_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_good_checkpoint(
    pairs, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    settings = {**TINY, "trainer.steps": "9", "trainer.checkpoint_every": "1"}
    usual = pix2pix.Pix2Pix.step

    def breaks(self, batch, step, done):
        terms = usual(self, batch, step, done)
        return {**terms, "l1": torch.tensor(math.nan)} if step == 3 else terms

    with monkeypatch.context() as patch:
        patch.setattr(pix2pix.Pix2Pix, "step", breaks)
        with pytest.raises(TrainingError, match="step 4: loss l1 is nan"):
            train(pairs, run, settings=settings)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["step"] == 3
    assert train(pairs, run, resume=True).finished


def test_a_device_too_small_for_a_batch_is_one_line_and_a_smaller_one_goes_on(
    pairs, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    settings = {**TINY, "trainer.steps": "3", "trainer.checkpoint_every": "1"}
    usual = pix2pix.Pix2Pix.step

    def tight(self, batch, step, done):
        if step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return usual(self, batch, step, done)

    with monkeypatch.context() as patch:
        patch.setattr(pix2pix.Pix2Pix, "step", tight)
        with pytest.raises(DeviceError, match="cpu: not enough memory for this job"):
            train(pairs, run, settings=settings)
    assert train(pairs, run, settings={"trainer.batch": "1"}, resume=True).finished


@pytest.mark.fault
def test_a_killed_run_resumes_from_its_last_checkpoint_to_the_same_bits(pairs, tmp_path):
    settings = {**TINY, "trainer.steps": "8", "trainer.checkpoint_every": "1"}
    train(pairs, tmp_path / "straight", settings=settings)
    script = (
        "import os, pathlib, sys, torch\n"
        "from tilemapper.training import checkpoint\n"
        "from tilemapper.training.run import train\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "whole = pathlib.Path.replace\n"
        "def dies(self, target):\n"
        "    if 'step_00000005' in str(target): os.kill(os.getpid(), 9)\n"
        "    return whole(self, target)\n"
        "pathlib.Path.replace = dies\n"
        f"train(sys.argv[1], sys.argv[2], settings={settings!r})\n"
    )
    arguments = [str(pairs), str(tmp_path / "killed"), str(torch.get_num_threads())]
    child = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert child.returncode == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "killed" / "checkpoints" / "last.ckpt")["step"] == 4
    assert train(pairs, tmp_path / "killed", resume=True).finished
    assert_same_weights(tmp_path / "killed", tmp_path / "straight")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.out.tfevents", "step_2.png"])
def test_a_disk_that_fills_up_under_the_records_ends_the_run_in_one_line(
    pairs, tmp_path, monkeypatch, name
):
    """Nothing is lost: the checkpoint before is whole, and the run resumes to the same bits."""
    settings = {**TINY, "trainer.steps": "4", "trainer.checkpoint_every": "1"}
    settings |= {"trainer.sample_every": "2"}
    train(pairs, tmp_path / "straight", settings=settings)
    run, writes = tmp_path / "run", itertools.count()
    usual = Path.open

    def fills_up(self, *args, **more):
        late = next(writes) > 3 if name == "metrics.jsonl" else True
        if name in self.name and late and "a" in (args[0] if args else more.get("mode", "r")):
            return usual(Path("/dev/full"), args[0], **more)
        return usual(self, *args, **more)

    def fills_up_atomic(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fills_up)
        if name.endswith("png"):
            patch.setattr(Image.Image, "save", fills_up_atomic)
        with pytest.raises(DiskFullError, match="free some space") as caught:
            train(pairs, run, settings=settings)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 75
    # The same command alone would be told that the folder has a run already.
    assert str(caught.value).endswith(", with --resume") == (run / "config.toml").exists()
    assert train(pairs, run, resume=(run / "config.toml").exists(), settings=settings).finished
    assert_same_weights(run, tmp_path / "straight")


def test_folders_in_use_are_left_alone(pairs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    settings = {**TINY, "trainer.steps": "1"}
    with pytest.raises(TargetError, match="holds other files"):
        train(pairs, tmp_path / "mine", settings=settings)
    with pytest.raises(TargetError, match="no run to resume"):
        train(pairs, tmp_path / "none", settings=settings, resume=True)
    run = tmp_path / "run"
    train(pairs, run, settings=settings)
    with pytest.raises(TargetError, match="has a run already"):
        train(pairs, run, settings=settings)
    import fcntl

    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another run"):
            train(pairs, run, resume=True)


def test_a_run_killed_before_its_job_was_written_begins_in_the_same_folder(pairs, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in (".lock", ".config.77.ab.tmp.toml"):
        (run / name).touch()
    settings = {**TINY, "trainer.steps": "1"}
    assert train(pairs, run, settings=settings).finished
    (run / ".model.ab.tmp").mkdir()
    (run / "samples" / ".step_1.77.ab.tmp.png").parent.mkdir(exist_ok=True)
    (run / "samples" / ".step_1.77.ab.tmp.png").touch()
    assert train(pairs, run, resume=True).finished
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]


def test_a_checkpoint_of_another_architecture_is_refused(pairs, tmp_path):
    run = tmp_path / "run"
    train(pairs, run, settings={**TINY, "trainer.steps": "1"})
    wider = TINY["networks.generator_arguments"].replace("width=4", "width=8")
    words = r"of other networks than the job's \(size mismatch for \S+: .*\); resume with"
    with pytest.raises(TrainingError, match=words):
        train(pairs, run, resume=True, settings={"networks.generator_arguments": wider})


def test_weights_that_would_mean_something_else_are_not_gone_on_with(pairs, tmp_path):
    def palette(*names: str) -> str:
        named = zip(names, COLOURS, strict=False)
        return toml_value([{"name": name, "colour": colour} for name, colour in named])

    unet = {"networks.generator": "unet", "networks.generator_arguments": "{width=2, depth=2}"}
    settings = {**TINY, **unet, "palette": palette("land", "house", "lake"), "trainer.steps": "1"}
    train(pairs, tmp_path, settings={**settings, "losses.gan": "none"})
    rgb = {"networks.head": "rgb", "losses.cross_entropy": "0", "losses.l1": "1"}
    leaky = {"networks.generator_arguments": '{width=2, depth=2, skip="leaky"}'}
    others = {
        "data.direction": rgb | {"data.direction": "BtoA"},
        "networks.head": rgb,
        "networks.generator_arguments": leaky,
        "palette": {"palette": palette("land", "lake", "house")},
    }
    for key, changes in others.items():
        with pytest.raises(TrainingError, match=rf"other networks than the job's \({key} was "):
            train(pairs, tmp_path, resume=True, settings=changes)


@pytest.mark.parametrize("missing", ["modules", "step", "job"])
def test_a_checkpoint_that_lacks_something_is_refused(pairs, tmp_path, missing):
    run = tmp_path / "run"
    train(pairs, run, settings={**TINY, "trainer.steps": "1"})
    last = run / "checkpoints" / "last.ckpt"
    state = read_checkpoint(last)
    del state[missing]
    for path in last.parent.iterdir():
        write_checkpoint(path, state)
    with pytest.raises(TrainingError, match=rf"checkpoint: .*\('{missing}'\); resume with"):
        train(pairs, run, resume=True)


def test_a_checkpoint_of_another_split_is_refused_and_one_that_does_not_say_is_not(pairs, tmp_path):
    run, more = tmp_path / "run", write_pairs(tmp_path / "more", 13)
    train(pairs, run, settings={**TINY, "trainer.steps": "1"})
    with pytest.raises(TrainingError, match="split in another way; resume with") as caught:
        train(pairs, run, resume=True, settings={"data.split_seed": "3"})
    assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match="of other pairs than these; resume with the data"):
        train(more, run, resume=True)
    last = run / "checkpoints" / "last.ckpt"
    state = read_checkpoint(last)
    for path in last.parent.iterdir():
        path.unlink()
    del state["split"]["trained"]  # as an older version wrote it
    write_checkpoint(last, state)
    assert train(pairs, run, resume=True).finished
    with pytest.raises(TrainingError, match="of other pairs than these"):
        train(more, run, resume=True)
    del state["split"]
    for path in last.parent.iterdir():
        path.unlink()
    write_checkpoint(last, state)
    assert train(more, run, resume=True).finished


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"augment.crop": "64"}, PairError, "at least 64 px are needed"),
        (
            {"trainer.best_by": "beauty"},
            JobError,
            "beauty: no such figure, one of psnr, ",
        ),
        ({"networks.generator_arguments": "{wide=3}"}, ModelError, "did you mean width"),
        ({"networks.generator": "resudual"}, ModelError, "did you mean residual"),
        ({"nosuch": "1"}, OptionError, "unknown key"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(pairs, tmp_path, settings, kind, words):
    with pytest.raises(kind, match=words) as caught:
        train(pairs, tmp_path / "a" / "run", settings={**TINY, "trainer.steps": "1", **settings})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_a_refused_run_leaves_a_folder_that_was_there(pairs, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OptionError, match="unknown key"):
        train(pairs, tmp_path / "run", settings={"nosuch": "1"})
    assert (tmp_path / "run").is_dir()


def test_classic_learns_sixty_four_pairs_end_to_end(tmp_path, drawn):
    data = write_pairs(tmp_path / "pairs", 64, side=64)
    settings = {
        "data.resize": "0",
        "augment.crop": "64",
        "networks.generator_arguments": '{width=8, depth=6, norm="batch"}',
        "networks.discriminator_arguments": "{width=8, n_layers=2}",
        "trainer.epochs": "6",
        "trainer.batch": "8",
        "trainer.learning_rate": "2e-3",
        "trainer.log_every": "7",
        "trainer.precise_bn_batches": "8",
        "trainer.precision": "fp32",
    }
    result = train(data, tmp_path / "run", preset="classic", settings=settings)
    events = [e for e in read_events(tmp_path / "run" / "metrics.jsonl") if e["kind"] == "train"]
    assert result.step == 6 * math.ceil(58 / 8) or result.step == math.ceil(6 * 58 / 8)
    assert events[-1]["l1"] < events[0]["l1"] / 2
    assert 0 <= events[-1]["waiting_share"] < 1
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("layout", "share", "recipe", "figures"),
    [
        (("train", "val"), "0.1", "4 training pairs, 2 held out as a folder; ", "of 2 held-out"),
        (("",), "0.25", "3 training pairs, 1 held out by connected component (share 0.25, seed 0);",
         "of 1 held-out"),
        (("",), "0", "4 training pairs, none held out; ", "None: no pairs were held out."),
    ],
)  # fmt: skip
def test_the_card_says_by_what_pairs_were_held_out(tmp_path, layout, share, recipe, figures):
    data = tmp_path / "data"
    for part, count in zip(layout, (4, 2), strict=False):
        write_pairs(data / part, count)
    settings = {**TINY, "trainer.steps": "1", "data.held_out": share}
    result = train(data, tmp_path / "run", preset="classic", settings=settings)
    card, text = open_model(result.model).card, (result.model / "README.md").read_text()
    assert card.recipe.startswith(recipe)
    assert figures in text and "None grey levels" not in text
    assert "most likely colour" not in text  # it has no classes
