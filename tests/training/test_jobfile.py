from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemapper.errors import JobError, ModelError, OptionError
from tilemapper.training.assembly import make_discriminator, make_generator
from tilemapper.training.jobfile import (
    check_job,
    load_job,
    preset_paths,
)
from tilemapper.training.jobtext import job_text
from tilemapper.training.settings import parse_overrides


@pytest.mark.parametrize("name", ["classic", "fast", "best", "cyclegan"])
def test_every_preset_is_a_valid_job_whose_head_says_what_to_expect(name):
    job = load_job(preset=name)
    head = preset_paths()[name].read_text().split("\nkind")[0]
    assert job.name == name
    assert all(word in head for word in ("command:", "machine:", "time:", "expected:"))
    with torch.device("meta"):  # its own networks; whoever trains in a test takes smaller ones
        assert make_generator(job) and make_discriminator(job)


EXPERIMENTS = sorted((Path(__file__).parents[2] / "pipelines" / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_a_valid_job_whose_head_says_what_came_of_it(path):
    job = load_job(preset="fast", config=path)
    head = path.read_text().partition("kind =")[0]
    assert job.trainer.steps or "--budget-minutes" in head
    assert all(f"# {word}:" in head for word in ("command", "machine", "time", "figures"))


def test_classic_is_the_paper():
    job = load_job(preset="classic")
    assert (job.losses.gan, job.losses.l1, job.losses.gan_weight) == ("bce", 100, 1)
    assert (job.trainer.learning_rate, job.trainer.betas) == (2e-4, (0.5, 0.999))
    assert (job.trainer.epochs, job.trainer.batch, job.data.resize) == (200, 1, 286)
    assert job.networks.generator_arguments["width"] == 64


def test_a_set_value_is_found_by_its_key_alone_where_one_section_has_it():
    job = load_job(overrides={"batch": "3", "losses.l1": "7", "generator": "unet"})
    assert (job.trainer.batch, job.losses.l1, job.networks.generator) == (3, 7.0, "unet")


def test_a_length_given_later_takes_the_place_of_the_presets(tmp_path):
    trainer = load_job(preset="classic", overrides={"minutes": "3"}).trainer
    assert (trainer.epochs, trainer.minutes) == (0, 3)


def test_another_architecture_drops_the_arguments_of_the_one_before():
    networks = load_job(overrides={"generator": "residual"}).networks
    assert networks.generator_arguments == {}
    networks = load_job(overrides={"networks.generator_arguments.width": "7"}).networks
    assert networks.generator_arguments["width"] == 7
    assert networks.generator_arguments["depth"] == 8
    networks = load_job(overrides={"generator_arguments": "{width=7}"}).networks
    assert networks.generator_arguments == {"width": 7}


def test_what_is_set_holds_whatever_its_order():
    first, second = {"generator_arguments": "{width=4}"}, {"generator": "residual"}
    inner = {"networks.generator_arguments.stride": "32"}
    for changes in (first | second | inner, inner | second | first):
        networks = load_job(overrides=changes).networks
        assert networks.generator_arguments == {"width": 4, "stride": 32}
    for changes in ({"steps": "3", "minutes": "5"}, {"minutes": "5", "steps": "3"}):
        with pytest.raises(JobError, match=r"steps and trainer\.minutes are both set"):
            load_job(overrides=changes)


def test_an_unknown_key_is_refused_with_the_nearest_one():
    with pytest.raises(OptionError, match="learing_rate: unknown key; did you mean learning_rate"):
        load_job(overrides={"learing_rate": "1"})
    with pytest.raises(OptionError, match="did you mean batch"):
        load_job(overrides={"trainer.bath": "1"})


def test_an_unknown_key_of_a_file_is_refused_with_its_place(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("[trainer]\nlearing_rate = 1\n")
    with pytest.raises(JobError) as caught:
        load_job(config=path)
    assert str(caught.value) == (
        "train.toml: unknown key trainer.learing_rate; did you mean learning_rate?"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[trainer]\nbatch = 0\n", "trainer.batch is '0'"),
        ("[trainer]\nsteps = 3\nepochs = 2\n", "both set"),
        ("[losses]\ncross_entropy = 1.0\n", "needs networks.head = palette"),
        ('[networks]\nhead = "palette"\n', "palette"),
        (
            "".join(f'[[palette]]\nname = "c{i}"\ncolour = [{i}, 0, 0]\n' for i in range(129)),
            "at most 128 can be trained",
        ),
        ("[augment]\nscale = [2.0, 1.0]\n", "ascending"),
        ("[trainer]\nclip = inf\n", "trainer.clip is 'inf': .* finite"),
        ("[networks]\ngenerator_arguments = {dropout = nan}\n", "finite"),
        ("[trainer]\nbetas = [2.0, 0.9]\n", "trainer.betas.0 is '2.0'"),
        ("[augment]\ncrop = 100\n", "augment.crop is 100, a multiple of 256 .*generator unet"),
        (f"[trainer]\nseed = {2**32}\n", "trainer.seed is '4294967296': .* less than 4294967296"),
        ('[trainer]\nbatch = "8"\n', "trainer.batch is '8': a whole number is needed, without"),
        ("[trainer]\nclip = true\n", "trainer.clip is 'True': a number is needed;"),
        ('[trainer]\nchannels_last = "no"\n', "channels_last is 'no': true or false is needed"),
        ('[augment]\nright_angles = "True"\n', "is 'True': write true, in lower case; correct it"),
        ("[losses]\njoint_batch = 1\n", "losses.joint_batch is '1': true or false is needed;"),
        ('[augment]\nscale = ["1", 2]\n', "augment.scale.0 is '1': a number is needed, without"),
        ('[[data.extra]]\npath = "x"\nshare = "0.1"\n', "data.extra.0.share is '0.1': a number is"),
        ('[[palette]]\nname = "a"\ncolour = [true, 0, 0]\n', "palette.0.colour.0 is 'True'"),
        ('name = "my map"\n', "name is 'my map': 1 to 80 letters, .* first; correct it"),
        ("[data]\ngsd_m = 20000.0\n", "data.gsd_m is '20000.0'"),
        ("not toml", "cannot be read as TOML"),
    ],
)
def test_a_wrong_job_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(JobError, match=words) as caught:
        load_job(config=path)
    assert "\n" not in str(caught.value)


def test_a_preset_is_not_blamed_alone_for_what_was_set():
    with pytest.raises(JobError, match=r"^fast\.toml with --set: name is 'my map'"):
        load_job(preset="fast", overrides={"name": "my map"})


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        ("classic", {"losses.l1": "0", "losses.gan": "none"}, "no loss is left, set losses.l1"),
        ("classic", {"losses.l1": "0", "gan_weight": "0"}, "no loss is left"),
        ("classic", {"losses.l1": "0", "gan_from": "0.5"}, "losses.gan_from is 0.5"),
        ("classic", {"crop": "32", "generator_arguments": "{depth=5}",
         "discriminator_arguments": "{n_layers=4}"}, "at least 48 is needed by a discriminator"),
        ("classic", {"crop": "16", "generator": "residual", "losses.gan": "none"}, "at least 32"),
        ("classic", {"crop": "32", "generator": "efficientnet", "generator_arguments": "{}",
         "losses.gan": "none"}, "at least 64"),
        ("classic", {"networks.encoder": "lite0.pth"}, "generator = efficientnet, not unet"),
        ("classic", {"networks.encoder": "lite0.pth", "generator": "efficientnet",
         "networks.init": "maps"}, "encoder and networks.init are both set"),
        ("classic", {"generator": "identity"}, "no weights to train"),
        ("classic", {"generator_arguments": "{bands=4}"}, "bands is 4, 3 is needed"),
        ("classic", {"discriminator_arguments": "{bands=3}"}, "bands is 3, 6 is needed"),
        ("cyclegan", {"losses.gan": "none"}, "losses.gan is none"),
        ("cyclegan", {"losses.gan": "wgan-gp"}, "losses.gan is wgan-gp"),
        ("cyclegan", {"losses.l1": "50"}, "losses.l1 is 50.0, .* set it to 0;"),
        ("cyclegan", {"losses.gradient_l1": "1"}, "no use for it, set it to 0.0"),
        ("cyclegan", {"losses.overlap_disagreement": "1"}, "overlap_disagreement is 1.0"),
        ("fast", {"losses.overlap_disagreement": "1", "batch": "5"}, "batch is 5, an even number"),
        ("fast", {"losses.overlap_disagreement": "1", "crop": "36",
         "generator_arguments": "{depth=2}"}, "crop is 36, a multiple of 8"),
        ("fast", {"losses.overlap_disagreement": "1", "rotation": "9.5"}, "rotation is 9.5, 0 is"),
        ("classic", {"losses.jaccard": "1"}, "losses.jaccard needs networks.head = palette"),
        ("classic", {"losses.class_boost": "{road=3.0}"}, "class_boost needs networks.head"),
        ("cyclegan", {"gan_weight": "0", "cycle": "0", "identity": "0"}, "no loss is left, set "),
        ("cyclegan", {"losses.feature_matching": "1"}, "losses.feature_matching is 1.0"),
        ("cyclegan", {"losses.gan_from": "0.3"}, "losses.gan_from is 0.3"),
        ("cyclegan", {"losses.joint_batch": "true"}, "joint_batch is true, .* set it to false"),
        ("cyclegan", {"trainer.compile": "default"}, 'compile is "default", .* it to "off"'),
        ("cyclegan", {"augment.noise": "0.1"}, "augment.noise is 0.1"),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_trained_together_or_have_no_effect_are_refused(preset, changes, words):
    with pytest.raises(JobError, match=words) as caught:
        load_job(preset=preset, overrides=changes)
    assert "\n" not in str(caught.value)


def test_a_network_that_there_is_not_is_refused_when_the_job_is_read():
    with pytest.raises(ModelError, match="did you mean width"):
        load_job(overrides={"discriminator_arguments": "{widht=3}"})


def test_a_missing_job_file_and_an_unknown_preset_are_named(tmp_path):
    with pytest.raises(JobError, match=r"none\.toml: not found"):
        load_job(config=tmp_path / "none.toml")
    with pytest.raises(OptionError, match="did you mean classic"):
        load_job(preset="clasic")


def test_a_job_written_and_read_again_is_the_same_job():
    for name in ("fast", "cyclegan"):
        job = load_job(preset=name, overrides={"data.extra": '[{path="a", share=0.25}]'})
        assert check_job(tomllib.loads(job_text(job)), where="text") == job


FAST = load_job(preset="fast")


@settings(deadline=None, max_examples=60)  # not of time: machines may be busy
@given(
    names=st.lists(st.text(min_size=1, max_size=80), min_size=2, max_size=4, unique=True),
    boost=st.floats(1e-9, 100),
    path=st.text(),
    rate=st.floats(1e-300, 1e300),
)
def test_any_job_written_is_one_that_can_be_read(names, boost, path, rate):
    values = FAST.model_dump(mode="json")
    values["palette"] = [{"name": name, "colour": (i, 0, 0)} for i, name in enumerate(names)]
    values["losses"]["class_boost"] = dict.fromkeys(names, boost)
    values["data"]["extra"] = [{"path": path, "share": 0.5}]
    values["trainer"]["learning_rate"] = rate
    job = check_job(values, where="here")
    assert check_job(tomllib.loads(job_text(job)), where="text") == job


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("losses.class_boost", {"park": 2.0, "water": 3.5}),
        ("augment.scale", (0.5, 2.0)),
        ("trainer.ema", 0.0),
        ("trainer.channels_last", False),
        ("name", "other"),
    ],
)
def test_settings_in_python_may_be_any_value_of_a_job(monkeypatch, tmp_path, key, value):
    from tilemapper.api import train as api

    seen = {}
    monkeypatch.setattr(api, "train_and_report", lambda *_, **options: seen.update(options))
    api.train(tmp_path, tmp_path, settings={key: value})
    found = load_job(overrides=seen["settings"])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_comma_separated_values_are_a_sweep_and_bracketed_ones_are_not():
    combinations = list(parse_overrides(["batch=1,2", "augment.scale=[3,4]", "name=x,y"]))
    assert len(combinations) == 4
    assert combinations[1] == {"batch": "1", "augment.scale": "[3,4]", "name": "y"}
    assert list(parse_overrides([])) == [{}]
    with pytest.raises(OptionError, match="no key=value"):
        list(parse_overrides(["steps"]))
    for twice in (["trainer.batch=8", "trainer.batch=4,2"], ["batch=8", "trainer.batch=8"]):
        with pytest.raises(OptionError, match=r"trainer\.batch is set already"):
            list(parse_overrides(twice))
    with pytest.raises(OptionError, match="a value is there twice"):
        list(parse_overrides(["batch=8,4,8"]))
