"""Hostile, damaged and lying checkpoints and model folders through the commands that open them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import noise, write_raster
from tests.corpus import checkpoints, model_folders
from tests.corpus.forks import Forks, Listener, Watch
from tests.corpus.judge import SECRET, refusal_faults
from tests.faults.table import count
from tilemapper.errors import ModelError, TrainingError
from tilemapper.networks.card import ModelCard
from tilemapper.networks.importers import read_checkpoint
from tilemapper.networks.model import open_model
from tilemapper.training import checkpoint as own

SAID = ["--dialect", "junyanz", "--gsd-m", "none", "--direction", "AtoB", "--norm-stats", "running"]
# A flip may turn these to what is as good: they decide no pixel.
FREE = frozenset(ModelCard.model_fields) - {
    "format", "architecture", "arguments", "head", "palette", "tile", "bands", "value_range",
    "direction", "gsd_m", "norm", "tone", "weights", "weights_sha256",
}  # fmt: skip


def import_faults(forks: Forks, listener: Listener, folder: Path, made: checkpoints.Made):
    """What is wrong with how the imports ended, by name."""
    ran, wrong = folder / "ran", []
    connections = len(listener.connections)
    for name, data in made:
        checkpoint, out = folder / "g.pth", folder / "out"
        checkpoint.write_bytes(data)
        preload = ("tilemapper.networks.importers",)
        ended = forks.run(
            "models", "import", checkpoint, out, *SAID,
            cwd=folder, env=listener.env, preload=preload,
        )  # fmt: skip
        faults = [*refusal_faults(ended), ended.costs_too_much()]
        faults += ["its code ran"] if ran.exists() else []
        left = {path.name for path in folder.iterdir()} - {"g.pth"}
        faults += [f"{name} left" for name in left] + listener.connections[connections:]
        wrong += [f"{name}: {fault}" for fault in faults if fault]
    return wrong


def folder_faults(forks: Forks, root: Path, cases: list[tuple[str, model_folders.Spoil]]):
    """What is wrong with how ``render`` and ``models show`` ended, by name."""
    canary = root / "canary"
    canary.write_text(SECRET)
    source = write_raster(root / "scene.tif", noise(20, 20))
    model_folders.sound(root / "sound")
    wrong = []
    for name, spoil in cases:
        folder = root / "spoilt"
        shutil.copytree(root / "sound", folder)
        spoil(model_folders.Folder(folder, canary))
        for command in (("render", source, root / "out.tif", "--model", folder),
                        ("models", "show", folder)):  # fmt: skip
            ended = forks.run(*command, cwd=root)
            faults = [*refusal_faults(ended), ended.costs_too_much()]
            faults += ["canary told"] if SECRET in ended.stdout + ended.stderr else []
            # What is staged waits for the model to be restored.
            shutil.rmtree(root / "out.tif.part", ignore_errors=True)
            expected = {"canary", "scene.tif", "sound", "spoilt"}
            left = {path.name for path in root.iterdir()} - expected
            faults += [f"{path} left" for path in left]
            wrong += [f"{name}: {fault}" for fault in faults if fault]
        shutil.rmtree(folder)
    return wrong


OTHERS = ("5,000 wrappers", "nothing but shells", "keys that steer a terminal")


def test_checkpoints_with_code_or_damage_are_refused_in_one_line(forks, listener, tmp_path):
    ran = tmp_path / "ran"
    chosen = [*checkpoints.malicious(ran)][10:13] + [*checkpoints.damaged()][10:12]
    chosen += [made for made in checkpoints.wrong() if made[0] in OTHERS]
    assert import_faults(forks, listener, tmp_path, iter(chosen)) == []


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_every_checkpoint_of_the_corpus(forks, listener, tmp_path):
    kinds = {
        "checkpoints with code or escaping names": [*checkpoints.malicious(tmp_path / "ran")],
        "checkpoints that are damaged": [*checkpoints.damaged()],
        "checkpoints of other contents": [*checkpoints.wrong()],
    }
    everything = []
    for name, made in kinds.items():
        wrong = import_faults(forks, listener, tmp_path, iter(made))
        count(name, len(made), len({line.partition(":")[0] for line in wrong}), "models import")
        everything += wrong
    assert everything == []


def test_lying_model_folders_are_refused_in_one_line(forks, tmp_path):
    words = ("edited", "a link to a secret", "8 bits", "outside")
    cases = [case for case in model_folders.cases() if any(word in case[0] for word in words)]
    assert folder_faults(forks, tmp_path, cases) == []


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_every_model_folder_of_the_corpus(forks, tmp_path):
    cases = [*model_folders.cases()]
    wrong = folder_faults(forks, tmp_path, cases)
    names = {line.rpartition(":")[0] for line in wrong}
    count("model folders", len(cases), len(names), "each through render and models show")
    assert wrong == []


@pytest.mark.fault
def test_a_link_in_the_place_of_the_readme_is_not_followed_into_an_export(forks, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text(SECRET)
    folder = model_folders.sound(tmp_path / "m").folder
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(canary)
    watch = Watch(canary)
    assert forks.run("models", "export", folder, tmp_path / "out", cwd=tmp_path).code == 0
    assert watch.opened() == []
    assert (tmp_path / "out" / "README.md").read_text() == "# small\n"
    (folder / "README.md").unlink()
    (folder / "README.md").write_bytes(b"\xff" * 10)
    ended = forks.run("models", "export", folder, tmp_path / "two", cwd=tmp_path)
    assert (ended.code, ended.errors) == (0, [])
    watch.close()


def weight_flips(root: Path, flips: int) -> list[str]:
    """Flips that a model's weights survived."""
    model = model_folders.sound(root / "flipped")
    path = model.folder / "generator.safetensors"
    data = path.read_bytes()
    dice, survived = random.Random(0), []
    for _ in range(flips):
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        try:
            open_model(model.folder).generator()
        except ModelError:
            continue
        survived.append(f"bit {bit} at {at}")
    path.write_bytes(data)
    return survived


def card_flips(root: Path, step: int) -> tuple[int, list[str]]:
    """Flips of a card that left it readable and yet changed what decides a pixel."""
    model = model_folders.sound(root / "card")
    path = model.folder / "model.toml"
    data, wrong, number = path.read_bytes(), [], 0
    good = model.card.model_dump(exclude=set(FREE))
    for place in range(0, 8 * len(data), step):
        at, bit = divmod(place, 8)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        number += 1
        try:
            found = open_model(model.folder).card
        except ModelError:
            continue
        if found.model_dump(exclude=set(FREE)) != good:
            wrong.append(f"bit {bit} at {at}: {path.read_bytes()!r}")
    return number, wrong


def foreign_flips(root: Path, flips: int) -> list[str]:
    """Flips of a foreign checkpoint that were not noticed, and changed a weight."""
    path = root / "g.pth"
    data = checkpoints.saved(checkpoints.good())
    dice, wrong = random.Random(1), []

    def state() -> dict[str, torch.Tensor]:
        _, network = read_checkpoint(path, dialect="junyanz", norm_stats="running")
        return network.state_dict()

    path.write_bytes(data)
    good = state()
    for _ in range(flips):
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        try:
            found = state()
        except ModelError:
            continue
        if found.keys() != good.keys() or any(not found[k].equal(good[k]) for k in good):
            wrong.append(f"bit {bit} at {at}")
    return wrong


def training_flips(root: Path, flips: int) -> list[str]:
    """Flips that a checkpoint of training survived."""
    path = root / "last.ckpt"
    own.write_checkpoint(path, {"step": 1, "weights": torch.zeros(1000)})
    data, dice, survived = path.read_bytes(), random.Random(2), []
    for _ in range(flips):
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        try:
            own.read_checkpoint(path)
        except TrainingError:
            continue
        survived.append(f"bit {bit} at {at}")
    return survived


def test_flipped_bits_are_found_or_harm_nothing(tmp_path: Path):
    assert weight_flips(tmp_path, 20) == []
    assert card_flips(tmp_path, 97)[1] == []
    assert foreign_flips(tmp_path, 20) == []
    assert training_flips(tmp_path, 100) == []


@pytest.mark.fault
@pytest.mark.timeout(1200)
def test_flipped_bits_by_the_thousand(tmp_path: Path):
    wrong = [weight_flips(tmp_path, 1000), foreign_flips(tmp_path, 1000)]
    wrong += [training_flips(tmp_path, 2000)]
    number, cards = card_flips(tmp_path, 1)
    count("bit flips of a model's weights", 1000, len(wrong[0]), "all refused")
    count("bit flips of a foreign checkpoint", 1000, len(wrong[1]), "refused, or the same weights")
    count("bit flips of a training checkpoint", 2000, len(wrong[2]), "all refused")
    count(
        "bit flips of a model card", number, len(cards), "every bit; refused, or no pixel changes"
    )
    assert [*wrong, cards] == [[], [], [], []]
