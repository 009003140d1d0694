"""Training for a map style of one's own: its palette counted, fitted, judged."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.training.synthetic_pairs import TINY
from tilemapper.api.evaluate import evaluate
from tilemapper.cli.main import cli, run
from tilemapper.errors import JobError, PairError
from tilemapper.networks.model import PaletteClass, open_model
from tilemapper.training.jobfile import load_job
from tilemapper.training.pairs import open_pairs
from tilemapper.training.palette import count_palette
from tilemapper.training.run import train

# A dark style whose orange alone is near a colour of the default palette; by frequency.
STYLE = ((24, 26, 30), (66, 70, 80), (20, 60, 110), (250, 180, 40))
ROWS = (24, 12, 8, 4)  # of 48


def write_own(folder, count=8, *, quality=None, style=STYLE):
    """Side-by-side pairs whose maps are stripes of the style, shifted from pair to pair."""
    folder.mkdir()
    stripes = np.repeat(np.array(style, np.uint8), ROWS, axis=0)
    for index in range(count):
        target = np.broadcast_to(np.roll(stripes, 5 * index, axis=0)[:, None], (48, 48, 3))
        if quality:
            buffer = io.BytesIO()
            Image.fromarray(target).save(buffer, "JPEG", quality=quality, subsampling=0)
            target = np.array(Image.open(buffer))
        noise = np.random.default_rng(index).integers(0, 20, target.shape, dtype=np.uint8)
        pair = np.hstack([target // 2 + noise, target])
        Image.fromarray(pair).save(folder / f"{index}.png")
    return folder


def test_the_colours_of_maps_are_found_by_frequency(tmp_path):
    found = count_palette(open_pairs(write_own(tmp_path / "p")))
    assert [entry.colour for entry in found.classes] == list(STYLE)
    assert found.shares == pytest.approx([rows / 48 for rows in ROWS])
    assert (found.far, found.pairs) == (0, 8)


def test_jpeg_noise_makes_no_colours(tmp_path):
    source = open_pairs(write_own(tmp_path / "p", quality=92))
    found = count_palette(source, least_share=0.03)
    assert len(found.classes) == 4
    for entry, colour in zip(found.classes, STYLE, strict=True):
        assert np.abs(np.subtract(entry.colour, colour)).max() <= 3


def test_the_rarest_colours_go_when_there_are_too_many(tmp_path):
    source = open_pairs(write_own(tmp_path / "p"))
    assert [c.colour for c in count_palette(source, classes=2).classes] == list(STYLE[:2])
    fewer = count_palette(source, least_share=0.1)
    assert [c.colour for c in fewer.classes] == list(STYLE[:3])
    assert fewer.far == pytest.approx(4 / 48)


def test_near_colours_that_maps_tell_apart_stay_two(tmp_path):
    style = ((232, 228, 224), (244, 240, 236), (224, 220, 212), (255, 255, 255))
    found = count_palette(open_pairs(write_own(tmp_path / "p", style=style)))
    assert [entry.colour for entry in found.classes] == list(style)


def write_whitish(folder):
    """Maps of white, of which three fifths became a little darker, and of grey, to either side."""
    folder.mkdir()
    white = [(255, 255, 255), (255, 255, 255), (254, 253, 252), (253, 252, 252), (252, 252, 251)]
    rows = np.array(white * 8 + [(100, 100, 100)] * 3 + [(98, 101, 100)] * 3, np.uint8)
    target = np.broadcast_to(rows[:, None], (len(rows), 46, 3))
    for index in range(2):
        Image.fromarray(np.hstack([target // 2, target])).save(folder / f"{index}.png")
    return folder


def test_a_colour_is_the_median_of_what_compression_made_of_it(tmp_path):
    found = count_palette(open_pairs(write_whitish(tmp_path / "p")))
    assert [entry.colour for entry in found.classes] == [(254, 253, 252), (98, 100, 100)]


def test_the_classes_of_a_model_stay_and_their_colours_are_counted(tmp_path):
    classes = [('grey "a"', (104, 100, 90)), ("never", (0, 90, 0)), ("road", (255, 255, 255))]
    like = [PaletteClass(name=name, colour=colour) for name, colour in classes]
    found = count_palette(open_pairs(write_whitish(tmp_path / "p")), like=like)
    colours = [(98, 100, 100), (0, 90, 0), (254, 253, 252)]
    assert [(c.name, c.colour) for c in found.classes] == [
        (name, colour) for (name, _), colour in zip(classes, colours, strict=True)
    ]
    assert found.shares == pytest.approx([6 / 46, 0, 40 / 46])
    (tmp_path / "job.toml").write_text(found.job_text("p"))
    assert load_job(preset="fast", config=tmp_path / "job.toml").palette == found.classes


def test_the_colours_of_a_model_counted_on_other_maps(tmp_path, models):
    pairs = str(write_whitish(tmp_path / "p"))
    found = CliRunner().invoke(
        cli, ["pairs", "palette", pairs, "--json", "--like", str(models / "classes")]
    )
    entries = json.loads(found.stdout)["palette"]
    assert [entry["name"] for entry in entries] == ["land", "water", "road"]
    assert entries[2]["colour"] == [254, 253, 252]


def test_classes_of_a_model_without_a_palette_are_refused(tmp_path, models, capsys):
    pairs = str(write_whitish(tmp_path / "p"))
    rgb = next(p.parent for p in models.glob("*/model.toml") if "[[palette]]" not in p.read_text())
    assert run(cli, ["pairs", "palette", pairs, "--like", str(rgb)]) == 1
    assert "has no palette, --like needs one" in capsys.readouterr().err


def test_photographs_have_no_palette(tmp_path):
    (tmp_path / "p").mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (48, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "p" / f"{index}.png")
    with pytest.raises(PairError, match=r"0 colours .* two are needed; lower --min-share, or"):
        count_palette(open_pairs(tmp_path / "p"), least_share=0.2)


def test_the_default_palette_is_refused_for_another_style(tmp_path):
    pairs = write_own(tmp_path / "p")
    words = r"p: 92% of the maps' pixels .* tilemapper pairs palette"
    with pytest.raises(JobError, match=words):
        train(pairs, tmp_path / "run", settings={**TINY, "trainer.steps": "1"})
    assert not (tmp_path / "run").exists()


def test_colours_outside_the_palette_are_said(tmp_path):
    said: list[str] = []
    some = "[{name='a', colour=[24, 26, 30]}, {name='b', colour=[66, 70, 80]}]"
    settings = {**TINY, "palette": some, "trainer.steps": "1"}
    train(write_own(tmp_path / "p"), tmp_path / "run", settings=settings, notice=said.append)
    assert [line for line in said if line.startswith("25% of the maps' pixels are near no")]


def test_from_pairs_of_a_style_to_a_model_of_it(tmp_path):
    pairs = write_own(tmp_path / "p")
    printed = CliRunner().invoke(cli, ["pairs", "palette", str(pairs)])
    assert printed.exit_code == 0
    job = tmp_path / "palette.toml"
    job.write_text(printed.stdout.replace("class_1", "ground").replace("class_4", "main road"))
    assert load_job(preset="fast", config=job).palette[0].name == "ground"
    settings = {k: v for k, v in TINY.items() if k != "trainer.best_by"} | {"trainer.steps": "2"}
    result = train(pairs, tmp_path / "run", preset="fast", config=job, settings=settings)
    names = ["ground", "class_2", "class_3", "main_road"]
    assert [name for name in result.figures if name.endswith("_iou")] == [
        *(f"{name}_iou" for name in names), "mean_iou",
    ]  # fmt: skip
    colours = [entry.colour for entry in open_model(tmp_path / "run" / "model").card.palette]
    assert colours == list(STYLE)
    figures = evaluate(tmp_path / "run" / "model", pairs, device="cpu").figures
    assert "main_road_iou" in figures
    assert "water_iou" not in figures


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_an_rgb_model_is_judged_by_the_palette_that_is_given(tmp_path, models, direction):
    pairs, job = write_own(tmp_path / "p"), tmp_path / "palette.toml"
    assert run(cli, ["pairs", "palette", str(pairs), "--out", str(job)]) == 0
    model = next(path for path in models.iterdir() if open_model(path).card.head == "rgb")
    args = ["evaluate", str(model), str(pairs), "--direction", direction, "--json"]
    args += ["--device", "cpu", "--palette"]
    found = json.loads(CliRunner().invoke(cli, [*args, str(job)]).stdout)["headline"]
    names = [name for name in found if name.endswith("_iou")]
    assert names == [*(f"class_{k}_iou" for k in (1, 2, 3, 4)), "mean_iou"]


def test_a_file_without_a_palette_judges_nothing(tmp_path, models, capsys):
    (tmp_path / "job.toml").write_text('kind = "training"')
    args = [str(models / "unet"), str(write_own(tmp_path / "p")), "--palette"]
    assert run(cli, ["evaluate", *args, str(tmp_path / "job.toml")]) == 1
    assert "no [[palette]] found" in capsys.readouterr().err
    assert run(cli, ["evaluate", *args, str(tmp_path / "none.toml")]) == 1
    assert "none.toml: not found" in capsys.readouterr().err


def test_a_least_share_that_is_no_number_is_refused(tmp_path, capsys):
    args = ["pairs", "palette", str(write_own(tmp_path / "p")), "--min-share", "nan"]
    assert run(cli, args) == 2
    assert (
        capsys.readouterr().err == "error: min_share: nan found, 0 to 1 is needed; 0.001 is usual\n"
    )


def test_the_palette_as_json(tmp_path):
    found = CliRunner().invoke(cli, ["pairs", "palette", str(write_own(tmp_path / "p")), "--json"])
    plain = json.loads(found.stdout)
    assert plain["palette"][3] == {
        "name": "class_4", "colour": list(STYLE[3]), "share": pytest.approx(4 / 48, abs=1e-6),
    }  # fmt: skip
    assert (plain["pairs"], plain["far"]) == (8, 0)


def test_the_palette_goes_into_a_file(tmp_path):
    pairs = str(write_own(tmp_path / "p"))
    printed = CliRunner().invoke(cli, ["pairs", "palette", pairs]).stdout
    job = tmp_path / "palette.toml"
    told = CliRunner().invoke(cli, ["pairs", "palette", pairs, "--out", str(job)])
    assert told.stdout == f"4 colours in {job}; 0.0% of the pixels near none\n"
    assert job.read_text() == printed


def test_no_pairs_are_an_error_in_one_line(tmp_path, capsys):
    assert run(cli, ["pairs", "palette", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
