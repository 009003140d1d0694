"""The Python doors: the commands' names and defaults, and results that show themselves."""

from __future__ import annotations

import inspect
from html.parser import HTMLParser

import click
import numpy as np
import pytest

import tilemapper
from tests.conftest import noise, write_raster
from tests.training.images import write_side_by_side
from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.cli.main import cli

# What a command has for its words alone, and what it leaves to the shell.
WORDS = {"as_json", "debug", "quiet", "verbose", "dry_run", "help"}
# Written by another room over the finished map: see `tilemapper.compare`.
ELSEWHERE = {"report"}


def options_of(name):
    command = cli.get_command(click.Context(cli), name)
    return {p.name: p for p in command.params if isinstance(p, click.Option)}


def parameters_of(name):
    """Parameters of a door; those that `render` passes on as ``**options`` are the plan's."""
    from tilemapper.render.planning import plan_render
    from tilemapper.render.render import render

    if name == "render":
        return {**inspect.signature(plan_render).parameters, **inspect.signature(render).parameters}
    return inspect.signature(getattr(tilemapper, name)).parameters


@pytest.mark.parametrize("name", ["render", "train", "evaluate", "compare"])
def test_a_door_has_the_options_of_its_command_with_the_same_defaults(name):
    parameters = parameters_of(name)
    for option, declared in options_of(name).items():
        if option in WORDS | ELSEWHERE:
            continue
        assert option in parameters, f"--{option} of {name}"
        default, theirs = parameters[option].default, declared.default
        if option in ("out",):  # positional here, since a run always has one
            continue
        if theirs == "auto" and default is None:  # `plan_render`: None stands for auto
            continue
        assert default == theirs or (not default and not isinstance(theirs, str | int)), option


def test_every_door_opens():
    for name in tilemapper.__all__:
        assert getattr(tilemapper, name) is not None


class Page(HTMLParser):
    """Fails on what is not closed, or what would be fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "input", "meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href") or value.startswith("data:"), value[:60]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(result):
    text = result._repr_html_()
    page = Page()
    page.feed(text)
    assert not page.open
    assert "<script" not in text
    return page, text


def test_a_render_shows_source_and_map_under_one_slider_of_bounded_size(models, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(900, 1500))  # the worst for a JPEG
    page, text = parsed(
        tilemapper.render(
            city,
            tmp_path / "<b>.tif",
            models / "unet",
            bounds=(583090, 4506200, 583900, 4506900),
            gsd="native",
        )
    )
    assert len(text) < 1_000_000
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["satellite", "map"]
    sliders = [attrs for tag, attrs in page.tags if tag == "input"]
    assert len(sliders) == 1
    assert "clipPath" in sliders[0]["oninput"]
    assert sliders[0]["aria-label"]
    assert any("<b>.tif" in word for word in page.words)


def test_the_slider_moves_over_the_same_ground(models, tmp_path):
    from tilemapper.render.showing import _small_map, _small_source

    pixels = np.zeros((3, 1200, 800), np.uint8)
    pixels[0, 600:, :] = 200
    pixels[1, :, 400:] = 100
    city = write_raster(tmp_path / "city.tif", pixels)
    result = tilemapper.render(
        city,
        tmp_path / "map.tif",
        models / "identity",
        bounds=(583090, 4506100, 583630, 4506910),
        gsd=1.8,
    )
    shape = (300, 200)
    seen, _ = _small_map(result.target, shape)
    assert np.abs(_small_source(result.source, shape).astype(int) - seen).mean() < 2


def test_a_result_whose_files_are_gone_still_says_its_figures(models, tmp_path, make_raster):
    result = tilemapper.render(make_raster(64, 64), tmp_path / "map.tif", models / "identity")
    (tmp_path / "map.tif").unlink()
    page, _ = parsed(result)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert any("64 x 64 px" in word for word in page.words)
    assert "source" not in result.to_json()


def test_a_model_shows_its_card(models):
    page, _ = parsed(tilemapper.open_model(models / "classes"))
    assert {"classes", "identity", "palette of 3", "water"} <= {word.strip() for word in page.words}


def test_evaluate_measures_and_shows_its_table(models, tmp_path):
    write_side_by_side(tmp_path / "data" / "val", 3, size=64)
    result = tilemapper.evaluate(
        models / "identity",
        tmp_path / "data",
        device="cpu",
        tiled=True,
        baseline=[tilemapper.open_model(models / "constant")],
        min={"psnr": 1000},
        csv=tmp_path / "each.csv",
    )
    assert result.figures["psnr"] == result.to_json()["headline"]["psnr"]
    assert len(result.missed) == 1
    assert "psnr" in result.missed[0]
    assert (tmp_path / "each.csv").is_file()
    page, _ = parsed(result)
    assert {"identity on 3 pairs", "psnr", "constant @256"} <= set(page.words)


def test_a_comparison_shows_its_figures(models, tmp_path, make_raster):
    city = make_raster(300, 300)
    tilemapper.render(city, tmp_path / "map.tif", models / "identity")
    found = tilemapper.compare(city, tmp_path / "map.tif", model=models / "identity")
    page, _ = parsed(found)
    assert {"seam jump index", "overlap disagreement", "grid shift"} <= set(page.words)


def test_train_takes_the_options_of_its_command(tmp_path):
    settings = TINY | {"trainer.steps": 1, "trainer.sync_batch_norm": False}
    result = tilemapper.train(
        write_pairs(tmp_path / "pairs", 8),
        tmp_path / "run",
        seed=7,
        direction="AtoB",
        device="cpu",
        settings=settings,
    )
    assert result.step == 1
    assert "seed = 7" in (tmp_path / "run" / "config.toml").read_text()
    assert tilemapper.open_model(result.model).card.command.startswith("tilemapper.train(")
    page, _ = parsed(result)
    assert any("step 1, finished" in word for word in page.words)
