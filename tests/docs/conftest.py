"""A small model in the place of the shipped one, so that pages are followed in seconds."""

from __future__ import annotations

import functools

import pytest

from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, open_model, save_model
from tilemapper.report.city import files
from tilemapper.report.city.painter import Painter


@pytest.fixture(scope="package", autouse=True)
def _painters():
    """A city that several pages sample is laid out once: that takes longer than to write it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "Painter", functools.lru_cache(Painter))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with a small model called maps, so that pages are read in seconds."""
    folder = tmp_path_factory.mktemp("models")
    palette = open_model("maps").card.palette
    arguments = {"width": 4}
    card = ModelCard(
        name="maps", architecture="unet", arguments=arguments, head="palette", palette=palette,
        gsd_m=0.9, tone={"mean": (60, 63, 57), "std": (39, 38, 38)},
    )  # fmt: skip
    save_model(folder / "maps", card, build_generator("unet", arguments, len(palette)), "# maps\n")
    return folder
