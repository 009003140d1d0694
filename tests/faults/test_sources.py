"""Sources that change, vanish, or come from a server that misbehaves: right pixels, or one line."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy as copy_raster

from tests.archive.world import write_job
from tests.conftest import noise, read_raster, write_raster
from tests.faults.oracle import check_map, painted, write_source
from tests.faults.server import serving
from tests.faults.table import count
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.mosaic import Member, Mosaic
from tilemapper.archive.mosaic_vrt import vrt_text
from tilemapper.archive.run import run_archive
from tilemapper.archive.scene import Scene
from tilemapper.errors import RasterError, TilemapperError
from tilemapper.networks.model import open_model
from tilemapper.raster import opening
from tilemapper.raster.opening import open_raster
from tilemapper.render.render import render
from tilemapper.render.staging import staging_folder
from tilemapper.training.cutting import CutOptions, cut_pairs

OPTIONS = {"block": 512, "batch_size": 1, "device": "cpu", "gsd": "native"}


@pytest.fixture
def city(tmp_path):
    return write_source(tmp_path / "city.tif", 560, 600)


def once(action):
    """A tick that acts at the first tile only."""
    waiting = [action]

    def tick(_tiles):
        if waiting:
            waiting.pop()()

    return tick


def rewritten(city: Path) -> None:
    """The middle of the file, and nothing else: its size and its ends stay as they were."""
    middle = city.stat().st_size // 2
    with city.open("r+b") as file:
        file.seek(middle)
        data = file.read(4096)
        file.seek(middle)
        file.write(bytes(255 - byte for byte in data))


def test_a_source_that_is_written_to_meanwhile_is_no_map_of_two_versions(city, models, tmp_path):
    target = tmp_path / "map.tif"
    with pytest.raises(RasterError, match=r"city\.tif: changed while it was read"):
        render(city, target, models / "identity", tick=once(lambda: rewritten(city)), **OPTIONS)
    assert not target.exists() and not staging_folder(target).exists()
    render(city, target, models / "identity", **OPTIONS)
    np.testing.assert_array_equal(read_raster(target), read_raster(city))


def test_a_source_that_is_removed_meanwhile_was_read_whole_or_is_missed(city, models, tmp_path):
    target = tmp_path / "map.tif"
    render(city, target, models / "identity", tick=once(city.unlink), **OPTIONS)
    check_map(target, painted(560, 600), None)
    target.unlink()
    with pytest.raises(RasterError, match="no such file"):
        render(city, target, models / "identity", **OPTIONS)


@pytest.mark.parametrize("how", ["emptied", "cut", "other size"])
def test_a_source_that_shrinks_or_grows_meanwhile_leaves_nothing(city, models, tmp_path, how):
    size = city.stat().st_size

    def act():
        os.truncate(city, {"emptied": 0, "cut": size // 2, "other size": size + 4096}[how])

    target = tmp_path / "map.tif"
    with pytest.raises(RasterError) as caught:
        render(city, target, models / "identity", tick=once(act), **OPTIONS)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_imagery_that_is_written_to_while_pairs_are_cut_gives_none(city, tmp_path):
    def place(done, _total):
        if done == 1:
            rewritten(city)

    other = write_source(tmp_path / "map.tif", 560, 600)
    with pytest.raises(RasterError, match="changed while it was read"):
        cut_pairs(
            str(city), str(other), tmp_path / "pairs", options=CutOptions(tile=256), on_place=place
        )
    assert not (tmp_path / "pairs").exists()


def test_an_archive_renders_a_scene_that_changed_meanwhile_as_it_is_now(tmp_path, models):
    (tmp_path / "in").mkdir()
    city = write_source(tmp_path / "in" / "city.tif", 300, 600)
    other = write_source(tmp_path / "in" / "other.tif", 40, 60)
    job = load_job(
        write_job(tmp_path, models / "identity", render='batch_size = 1\ngsd = "native"')
    )
    tick = once(lambda: rewritten(city))

    def tell(event):
        if "tiles" in event:
            tick(1)

    summary = run_archive(job, open_model(job.render.model), tell=tell)
    assert (summary.done, summary.failed) == (1, 1)
    assert "changed while it was read" in summary.failures[0]["error"]
    summary = run_archive(job, open_model(job.render.model))
    assert (summary.done, summary.failed) == (1, 0)
    for source in (city, other):
        found = read_raster(job.root / f"{source.stem}_map.tif")
        np.testing.assert_array_equal(found, read_raster(source))


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A server that misbehaves, and the file that it serves: packed, so that damage is seen."""
    folder = tmp_path_factory.mktemp("web")
    city = write_raster(
        folder / "city.tif", noise(560, 600), tiled=True, blockxsize=256, blockysize=256,
        compress="DEFLATE",
    )  # fmt: skip
    write_raster(
        folder / "other_city.tif", noise(560, 600, seed=1), tiled=True, blockxsize=256,
        blockysize=256, compress="DEFLATE",
    )  # fmt: skip
    with serving(folder) as url:
        yield url, city


NUMBERS = iter(range(10**6))


def asked(web, mode: str, models: Path, target: Path) -> tuple[str, float]:
    """How a render over the web ended (right, WRONG, or an error's words), and after how long."""
    url, city = web
    begun = time.monotonic()
    try:
        render(
            f"{url}/{mode}/{next(NUMBERS)}/city.tif", target, models / "identity",
            overwrite=True, restart=True, **OPTIONS,
        )  # fmt: skip
        end = "right" if np.array_equal(read_raster(target), read_raster(city)) else "WRONG"
    except TilemapperError as error:
        end = str(error)
        assert "\n" not in end and not target.exists(), end
    return end, time.monotonic() - begun


@pytest.mark.parametrize("mode", ["good", "short", "garbage", "html"])
def test_what_a_server_gives_is_right_or_refused(web, models, tmp_path, mode):
    end, seconds = asked(web, mode, models, tmp_path / "map.tif")
    assert end != "WRONG" and seconds < 30
    if mode == "good":
        assert end == "right"
    if mode in ("garbage", "html"):
        assert end != "right"


def test_a_server_in_trouble_for_a_moment_is_asked_again_soon(web):
    begun = time.monotonic()
    open_raster(f"{web[0]}/awakes/{next(NUMBERS)}/city.tif").close()
    assert time.monotonic() - begun < 15  # GDAL alone waits for half a minute


def ended(source, target: Path, model: Path, **options) -> str:
    """Either "map", or the one line of an error that leaves nothing."""
    try:
        render(source, target, model, **OPTIONS, **options)
    except RasterError as error:
        assert "\n" not in str(error) and not target.exists()
        return str(error)
    return "map"


@pytest.mark.parametrize("mode", ["away", "lost"])
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_server_that_is_away_for_a_moment_costs_no_mask(
    models, tmp_path, monkeypatch, driver, mode
):
    """GDAL opens a raster whose mask it cannot fetch as one that is valid everywhere."""
    monkeypatch.setitem(opening._REMOTE_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    (tmp_path / "web").mkdir()
    plain, city = tmp_path / "plain.tif", tmp_path / "web" / "city.tif"
    write_raster(plain, noise(300, 200), mask=np.arange(300 * 200).reshape(300, 200) % 7 > 2)
    if driver == "GTiff":
        plain.rename(city)
    else:
        copy_raster(plain, city, driver=driver, COMPRESS="DEFLATE")
    with rasterio.open(city) as src:
        assert src.mask_flag_enums[0] == [MaskFlags.per_dataset]
        wanted = src.read(masked=True).filled(0), src.dataset_mask()
    ends = []
    with serving(tmp_path / "web") as url:
        for turn in range(1, 9):
            target = tmp_path / f"{turn}.tif"
            ends.append(ended(f"{url}/{mode}{turn}/0/city.tif", target, models / "identity"))
            if ends[-1] == "map":
                with rasterio.open(target) as dst:
                    np.testing.assert_array_equal(dst.dataset_mask(), wanted[1])
                    np.testing.assert_array_equal(dst.read(), wanted[0])
    assert "map" in ends and ends[0] != "map"
    if driver == "GTiff":  # whose mask lies behind its pixels
        assert any("a mask or overview of it cannot be read" in end for end in ends), ends


@pytest.mark.parametrize(
    ("which", "mode"), [("first", "away"), ("second", "away"), ("first", "lost")]
)
def test_a_server_that_is_away_for_a_moment_costs_no_mask_of_a_mosaics_scene(
    models, tmp_path, monkeypatch, which, mode
):
    """A VRT opens its members when they are read, and GDAL one of a lost mask as valid."""
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    (tmp_path / "web").mkdir()
    mask = np.arange(700 * 500).reshape(700, 500) % 7 > 2
    write_raster(tmp_path / "web" / "city.tif", noise(700, 500), mask=mask)
    with rasterio.open(tmp_path / "web" / "city.tif") as src:
        kind, where = (src.height, src.width), src.transform
        crs = src.crs
    bands = tuple((n, "Byte", colour) for n, colour in enumerate(("Red", "Green", "Blue"), 1))
    vrt, wanted = tmp_path / "city.vrt", np.concatenate([mask, mask], 1)
    ends = []
    with serving(tmp_path / "web") as url:
        for turn in range(1, 16, 1 if mode == "away" else 2):
            modes = (f"{mode}{turn}", "good") if which == "first" else ("good", f"{mode}{turn}")
            members = tuple(
                Member(
                    Scene(f"{url}/{how}/{turn}/city.tif", "city"), *kind,
                    where @ Affine.translation(col, 0), (), crs, bands,
                )
                for how, col in zip(modes, (0, 500), strict=True)
            )  # fmt: skip
            vrt.write_text(vrt_text(Mosaic("city", members)))
            target = tmp_path / f"{turn}.tif"
            ends.append(ended(vrt, target, models / "identity", allow_drivers=["VRT"]))
            if ends[-1] == "map":
                with rasterio.open(target) as dst:
                    np.testing.assert_array_equal(dst.dataset_mask() > 0, wanted)
    assert any("a mask or overview of it cannot be read" in end for end in ends), ends


def test_a_container_without_a_band_on_a_server_is_said_in_one_line(tmp_path):
    (tmp_path / "web").mkdir()
    profile = {"width": 20, "height": 20, "count": 1, "dtype": "uint8", "NUMI": "0"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "web" / "none.ntf", "w", driver="NITF", **profile):
            pass
    with serving(tmp_path / "web") as url, pytest.raises(RasterError, match="no band found"):
        open_raster(f"{url}/good/0/none.ntf", allow_drivers=["NITF"])


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_no_server_makes_a_wrong_map_or_a_run_without_end(web, models, tmp_path):
    modes = ("good", "slow", "flaky", "busy", "down", "short", "cut", "garbage", "swapped", "gone",
             "silent", "html", "plain")  # fmt: skip
    ends = {}
    for mode in modes:
        for turn in range(1 if mode in ("down", "silent") else 4):
            ends[mode, turn] = asked(web, mode, models, tmp_path / f"{mode}_{turn}.tif")
    print("\n".join(f"{mode}: {end[:110]} {took:.1f} s" for (mode, _), (end, took) in ends.items()))
    wrong = [key for key, (end, took) in ends.items() if end == "WRONG" or took > 300]
    slowest = max(took for _, took in ends.values())
    count("sources on a server that misbehaves", len(ends), len(wrong), f"slowest {slowest:.0f} s")
    assert not wrong
