"""Rasters and models that the tests make for themselves."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, settings
from rasterio.crs import CRS

from tests.corpus.forks import Forks
from tilemapper.memory import keep_freed_memory

# Tests run beside each other: a thread that waits for another by spinning takes a core that a test
# needs, two fifths of the time of some. OpenMP reads this when torch is imported; it changes
# neither how many threads there are nor what they compute. Programs that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The check says the same of the same tree, on a busy machine too: no property is measured by time,
# and its examples are always the same. `--hypothesis-profile search` looks for others.
settings.register_profile(
    "check", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("check")

# The files that take longest, longest first. Begun last, one of them keeps one core busy while all
# others have nothing left to do.
LONGEST = (
    "render/test_cluster.py",
    "training/test_run.py",
    "docs/test_pages.py",
    "render/test_render.py",
    "cli/test_evaluate.py",
    "cli/test_render.py",
    "archive/test_run.py",
    "test_readme.py",
    "serve/test_tiles.py",
    "training/test_leaving.py",
    "training/test_parallel.py",
    "render/cuda/test_render.py",
    "report/test_city.py",
    "faults/test_render_faults.py",
    "render/test_resume.py",
    "training/test_palette.py",
    "cli/test_compare.py",
    "render/test_stream.py",
    "render/cuda/test_block.py",
    "render/test_verify.py",
    "faults/test_commands_faults.py",
    "training/test_evaluate.py",
    "docs/test_notebook.py",
    "faults/test_sources_disk.py",
    "render/test_crash.py",
    "test_imports.py",
    "raster/test_aoi.py",
    "archive/test_stores.py",
    "render/test_readback.py",
    "report/test_seams.py",
    "archive/test_mosaic.py",
    "archive/test_rights.py",
    "serve/test_server.py",
    "render/test_engine.py",
    "render/test_grid_shift.py",
    "cli/test_train.py",
    "render/test_block.py",
)

UTM = CRS.from_epsg(32618)
ORIGIN = Affine(0.9, 0, 583000, 0, -0.9, 4507000)


def noise(height: int, width: int, seed: int = 0, bands: int = 3) -> np.ndarray:
    """(bands, height, width) uint8 of random levels: the hardest picture to keep."""
    return np.random.default_rng(seed).integers(0, 256, (bands, height, width), dtype=np.uint8)


def write_raster(
    path: Path, pixels: np.ndarray, *, mask: np.ndarray | None = None, **kw: Any
) -> Path:
    """A GeoTIFF of (bands, height, width); ``mask`` (height, width) bool becomes internal."""
    profile = {
        "driver": "GTiff",
        "crs": UTM,
        "transform": ORIGIN,
        "dtype": pixels.dtype.name,
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
    }
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile | kw) as dst,
    ):
        dst.write(pixels)
        if mask is not None:
            dst.write_mask(mask)
    return path


def read_raster(path: Path) -> np.ndarray:
    """All bands of a raster, (bands, height, width)."""
    with rasterio.open(path) as src:
        return src.read()


def pytest_configure() -> None:
    """What the command does when it starts: memory that was freed is used again.

    Else the C library gives every array of 128 KiB and more back to the system once a training has
    ended in this process, and the pages of those of all later tests are cleared anew.
    """
    keep_freed_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Brings the files of `LONGEST` to the front; all others stay as they were."""
    here = Path(__file__).parent
    rank = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """What is imported and collected stays: no litter is looked for there.

    To look through its million objects takes a third of a second, a dozen times in a process.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """The reports of plugins may look for what refers to what."""
    gc.unfreeze()


@pytest.fixture
def make_raster(tmp_path: Path) -> Any:
    """Writes a raster of noise of the given size into the test's folder."""

    def make(height: int, width: int, name: str = "city.tif", seed: int = 0, **kw: Any) -> Path:
        return write_raster(tmp_path / name, noise(height, width, seed), **kw)

    return make


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs commands in forks of one process, where how a process begins is not what is tested."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-in models: identity, slow, constant (200), classes, unet."""
    from tilemapper.networks.build import build_generator
    from tilemapper.networks.model import ModelCard, PaletteClass, save_model

    folder = tmp_path_factory.mktemp("models")
    colours = {"land": (232, 228, 224), "water": (177, 209, 255), "road": (255, 255, 255)}
    palette = tuple(PaletteClass(name=name, colour=colour) for name, colour in colours.items())
    for name, architecture, arguments, head in (
        ("identity", "identity", {}, "rgb"),
        ("slow", "identity", {"sleep_s": 0.02}, "rgb"),
        ("constant", "constant", {"value": 200}, "rgb"),
        ("classes", "identity", {}, "palette"),
        ("unet", "unet", {"width": 4}, "rgb"),
    ):
        classes = palette if head == "palette" else ()
        card = ModelCard(
            name=name, architecture=architecture, arguments=arguments, head=head, palette=classes
        )
        generator = build_generator(architecture, arguments, card.channels, card.head)
        for parameter in generator.parameters():
            if parameter.dim() == 4:
                # As initialised, the network paints almost flat grey: no test would see an error.
                parameter.data *= 12
        save_model(folder / name, card, generator, f"# {name}\n")
    return folder
