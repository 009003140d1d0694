"""The doctor finds what was broken on purpose, and says nothing against what is sound."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from tests.api.test_doors import parsed
from tests.conftest import noise, write_raster
from tilemapper.cli.main import cli, run
from tilemapper.errors import RasterError
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, save_model
from tilemapper.render.diagnosis import BOUNDS, Finding
from tilemapper.render.doctor import diagnose
from tilemapper.render.engine import Engine
from tilemapper.training.config import TrainerConfig

NAMES = ("batch invariance", "train/eval gap", "precision gap", "tile mismatch", "grid shift")


def grades(found):
    return {finding.name: finding.grade for finding in found.findings}


def test_an_identity_is_sound(models, make_raster):
    found = diagnose(models / "identity", make_raster(600, 700))
    assert grades(found) == dict.fromkeys(NAMES, "good")
    assert [finding.value for finding in found.findings] == [0, 0, 1, 0, 0]
    assert found.verdict == "identity is sound on this raster"
    page, _ = parsed(found)
    assert set(NAMES) <= set(page.words)


def test_frozen_statistics_that_are_not_the_datas_are_found(tmp_path, make_raster):
    generator = build_generator("unet", {"width": 4}, 3, "rgb")
    for name, buffer in generator.named_buffers():
        if name.endswith("running_var"):
            buffer *= 400
    for parameter in generator.parameters():
        if parameter.dim() == 4:
            parameter.data *= 12
    card = ModelCard(name="stale", architecture="unet", arguments={"width": 4})
    model = save_model(tmp_path / "stale", card, generator, "# stale\n")
    found = diagnose(model, make_raster(300, 300))
    assert grades(found)["train/eval gap"] == "bad"
    assert found.grade == "bad"
    assert "train/eval gap" in found.verdict
    code = run(cli, ["info", "--doctor", str(model.folder), str(make_raster(300, 300))])
    assert code == 1


def test_an_engine_whose_tiles_depend_on_their_batch_is_found(models, make_raster, monkeypatch):
    predict = Engine.predict

    def leaking(self, tiles):
        return (
            predict(self, tiles)
            + (tiles.mean(axis=(1, 2, 3)) > tiles.mean()).astype(np.int16)[:, None, None, None]
        )

    monkeypatch.setattr(Engine, "predict", leaking)
    found = diagnose(models / "identity", make_raster(600, 700))
    assert grades(found)["batch invariance"] == "bad"


def test_what_would_take_too_long_is_left_out_and_said(models, make_raster):
    found = diagnose(models / "identity", make_raster(300, 300), limit_s=0)
    assert set(grades(found).values()) == {"not measured"}
    lines = [line for line in found.lines() if line.startswith("grid shift")]
    assert [line[18:37] for line in lines] == ["not measured  would"]
    assert "too slow" in found.verdict


def test_tiny_and_masked_rasters_end_in_words(models, tmp_path, make_raster):
    small = diagnose(models / "identity", make_raster(20, 30))
    unknown = ("tile mismatch", "grid shift")
    assert {name for name, grade in grades(small).items() if grade != "good"} == set(unknown)
    assert [f.grade for f in small.findings if f.name in unknown] == ["not measured"] * 2
    assert small.verdict.endswith("(tile mismatch, grid shift not measured)")
    city = write_raster(tmp_path / "void.tif", noise(300, 300), mask=np.zeros((300, 300), bool))
    with pytest.raises(RasterError, match="no valid pixel"):
        diagnose(models / "identity", city)


@pytest.mark.parametrize(
    ("name", "value", "grade"),
    [
        ("tile mismatch", 2.0, "good"),
        ("tile mismatch", 12.01, "bad"),
        ("grid shift", 6.01, "bad"),
        ("precision gap", 0.991, "good"),
        ("precision gap", 0.96, "fair"),
        ("precision gap", 0.9, "bad"),
        ("batch invariance", 1e-9, "bad"),
    ],
)
def test_a_grade_follows_its_bounds(name, value, grade):
    finding = Finding.of(name, value, "of something")
    assert finding.grade == grade
    assert bool(finding.advice) == (grade != "good")


def test_the_command_examines_its_own_city_and_gives_one_object(models):
    result = CliRunner().invoke(cli, ["info", "--doctor", str(models / "classes"), "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == (1 if found["grade"] == "bad" else 0)
    assert [finding["name"] for finding in found["findings"]] == list(NAMES)
    assert found["raster"] == "the sample city, 1024 px"
    assert found["seconds"] < 60


def test_a_grey_raster_is_examined_once_its_band_is_named(models, tmp_path):
    city = write_raster(tmp_path / "grey.tif", noise(300, 300, bands=1))
    arguments = ["info", "--doctor", str(models / "identity"), str(city), "--overlap", "96"]
    assert run(cli, arguments) == 1
    assert run(cli, [*arguments, "--bidx", "1,1,1"]) == 0


def test_a_raster_without_a_model_is_wrong_usage(make_raster):
    assert run(cli, ["info", str(make_raster(20, 30))]) == 2


def test_tiles_without_overlap_are_not_called_one_tile_that_is_good(models, make_raster):
    found = diagnose(models / "identity", make_raster(700, 700), overlap=0)
    mismatch = next(finding for finding in found.findings if finding.name == "tile mismatch")
    assert (mismatch.grade, mismatch.value) == ("not measured", None)
    assert mismatch.advice == "tiles do not overlap with --overlap 0"
    assert mismatch.advice in "\n".join(found.lines())


def test_the_shift_is_measured_where_the_pixels_are(models, tmp_path):
    mask = np.zeros((3000, 3000), bool)
    mask[1495:1505, 1495:1505] = True
    city = write_raster(tmp_path / "mostly.tif", noise(3000, 3000), mask=mask)
    found = diagnose(models / "identity", city)
    shift = next(finding for finding in found.findings if finding.name == "grid shift")
    assert (shift.grade, shift.value) == ("good", 0)


def test_advice_names_the_key_that_takes_statistics_anew():
    named = {key for *_, advice in BOUNDS.values() for key in re.findall(r"trainer\.(\w+)", advice)}
    assert named == {"precise_bn_batches"}
    assert named <= set(TrainerConfig.model_fields)
