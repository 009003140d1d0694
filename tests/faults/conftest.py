"""Scenes and the driver that the fault tests of rendering share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.faults.injection import Driver
from tests.faults.oracle import Oracle, check_map, holes, painted, write_source

# Of the stand-in model `classes`, in the order of its palette.
COLOURS = np.array([(232, 228, 224), (177, 209, 255), (255, 255, 255)], np.uint8)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A process with `tilemapper render` imported, that forks for each run."""
    with Driver(tmp_path_factory.mktemp("driver")) as running:
        yield running


@pytest.fixture(scope="session")
def scenes(
    tmp_path_factory: pytest.TempPathFactory, models: Path, driver: Driver
) -> Callable[[str], Oracle]:
    """Oracles by name: plain, masked, gdal, single; each has learnt what is right."""
    made: dict[str, Oracle] = {}

    def scene(name: str) -> Oracle:
        if name not in made:
            made[name] = learnt_scene(name, tmp_path_factory.mktemp(name), models, driver)
        return made[name]

    return scene


def learnt_scene(name: str, place: Path, models: Path, driver: Driver) -> Oracle:
    """A scene of a few blocks, rendered once and compared with the formula pixel by pixel.

    plain: a map over an older one, four blocks. masked: a palette model with all its layers and
    holes. gdal: a driver that needs GDAL to write again. single: one block, no older map.
    """
    height, width = (300, 420) if name == "single" else (560, 600)
    masked = name == "masked"
    city = write_source(place / "city.tif", height, width, masked=masked)
    folder = place / "out"
    target = folder / "map.tif"
    model = models / ("classes" if masked else "identity")
    arguments = ["render", str(city), str(target), "--model", str(model), "--block", "512"]
    arguments += ["--overwrite", "--json", "--gsd", "native"]
    old: dict[str, bytes | None] = {"map.tif": None if name == "single" else b"an older map"}
    if masked:
        for layer in ("classes", "uncertainty"):
            arguments += [f"--{layer}", str(folder / f"{layer}.tif")]
            old[f"{layer}.tif"] = None
    if name == "gdal":
        arguments += ["--driver", "GTiff", "--co", "COMPRESS=LZW"]
    oracle = Oracle(arguments, folder, old)
    oracle.learn(driver)
    wanted = painted(height, width)
    if masked:
        classes = wanted.argmax(axis=0)
        check_map(folder / "classes.tif", classes[None].astype(np.uint8), holes(height, width))
        wanted = np.moveaxis(COLOURS[classes], 2, 0)
    check_map(target, wanted, holes(height, width) if masked else None)
    return oracle
