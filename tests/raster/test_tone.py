from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import noise, read_raster, write_raster
from tilemapper.errors import OptionError
from tilemapper.networks.model import ModelCard, Tone, open_model, save_model
from tilemapper.raster.tone import MOST_GAIN, apply_tone, tone_between, tone_table
from tilemapper.render.render import render


def test_mean_and_deviation_become_those_wanted():
    dark = np.random.default_rng(0).normal(60, 12, (3, 200, 200)).clip(0, 255).astype(np.uint8)
    wanted = ((100.0, 120.0, 90.0), (30.0, 20.0, 24.0))
    tone = tone_between(dark, wanted)
    assert tone is not None
    bright = apply_tone(dark, tone_table(tone)).reshape(3, -1)
    assert np.allclose(bright.mean(axis=1), wanted[0], atol=1)
    assert np.allclose(bright.std(axis=1), wanted[1], atol=1)


def test_a_flat_raster_is_not_blown_up():
    tone = tone_between(np.full((3, 8, 8), 90, np.uint8), ((100.0,) * 3, (50.0,) * 3))
    assert tone is not None
    assert tone[0] == (MOST_GAIN, 100 - MOST_GAIN * 90)
    assert tone_between(np.zeros((3, 0), np.uint8), ((1.0,) * 3, (1.0,) * 3)) is None


def test_render_matches_the_tone_of_the_card_once_for_the_whole_raster(tmp_path):
    card = ModelCard(
        name="toned",
        architecture="identity",
        tone=Tone(mean=(120.0, 110.0, 100.0), std=(20.0, 22.0, 24.0)),
    )
    from tilemapper.networks.build import build_generator

    save_model(tmp_path / "toned", card, build_generator("identity", {}, 3), "# toned\n")
    city = write_raster(tmp_path / "city.tif", noise(400, 900) // 2)
    render(city, tmp_path / "map.tif", tmp_path / "toned", tone="match")
    pixels = read_raster(tmp_path / "map.tif").reshape(3, -1)
    assert np.allclose(pixels.mean(axis=1), (120, 110, 100), atol=2)
    assert np.allclose(pixels.std(axis=1), (20, 22, 24), atol=2)


def test_a_card_without_a_tone_cannot_be_matched(make_raster, models, tmp_path):
    assert open_model(models / "identity").card.tone is None
    with pytest.raises(OptionError, match="has no tone to match"):
        render(make_raster(64, 64), tmp_path / "map.tif", models / "identity", tone="match")
