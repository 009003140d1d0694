"""What `verify` finds out about maps whose pixels are right, and what it does not open."""

from __future__ import annotations

import json
import shutil
import socket

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

import tilemapper
from tests.conftest import ORIGIN, noise, write_raster
from tilemapper.cli.main import cli, run
from tilemapper.errors import RasterError
from tilemapper.render.overview_check import overview_fault
from tilemapper.render.verify import Verdict, _check_pixels, verify


@pytest.fixture(autouse=True)
def _models(models, monkeypatch):
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))


@pytest.fixture(scope="module")
def rendered(models, tmp_path_factory):
    """A folder with a raster and its map of 700 x 600 px with one overview."""
    folder = tmp_path_factory.mktemp("rendered")
    city = write_raster(folder / "city.tif", noise(700, 600))
    tilemapper.render(city, folder / "map.tif", models / "identity", gsd="native")
    return folder


@pytest.fixture
def target(rendered, tmp_path):
    """A map beside its raster, both the test's own."""
    for path in rendered.iterdir():
        shutil.copy2(path, tmp_path)
    return tmp_path / "map.tif"


def changed(target, out, *, crs=None, transform=None, plan=None):
    """A copy of a map with other tags, a valid COG still."""
    loose = out.with_suffix(".loose.tif")
    shutil.copy(target, loose)
    with rasterio.open(loose, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
        if crs is not None:
            dst.crs = crs
        if transform is not None:
            dst.transform = transform
        if plan is not None:
            dst.update_tags(TILEMAPPER_PLAN=plan)
    rasterio.shutil.copy(
        loose, out, driver="COG", compress="DEFLATE", overviews="FORCE_USE_EXISTING"
    )
    return out


def plan_of(target):
    with rasterio.open(target) as src:
        return json.loads(src.tags()["TILEMAPPER_PLAN"])


class _Wide:
    """A raster that notes how often each of its file blocks is read, and how much at once."""

    height, width = 1300, 100_000

    def __init__(self):
        self.seen, self.most = np.zeros((3, 196), int), 0

    def read(self, window):
        rows = slice(window.row_off // 512, -(-(window.row_off + window.height) // 512))
        cols = slice(window.col_off // 512, -(-(window.col_off + window.width) // 512))
        self.seen[rows, cols] += 1
        self.most = max(self.most, window.height * window.width)

    dataset_mask = read


def test_a_wide_raster_is_read_in_pieces_each_file_block_once():
    wide, verdict = _Wide(), Verdict("map.tif")
    _check_pixels(verdict, wide)
    assert verdict.ok
    assert (wide.seen == 2).all() and wide.most <= 4 << 20  # pixels, and the mask


def test_a_file_block_that_cannot_be_read_is_told_by_its_place(tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(64, 5000))
    target = tmp_path / "map.tif"
    tilemapper.render(city, target, "identity", gsd="native")
    with rasterio.open(target) as src:
        at = int(src.get_tag_item("BLOCK_OFFSET_9_0", dm="TIFF", bidx=1))
    data = bytearray(target.read_bytes())
    data[at + 100 : at + 200] = bytes(100)
    target.write_bytes(data)
    (fault,) = verify(target).faults
    assert fault.startswith("pixels of rows 0 to 63, columns 4096 to 4999 cannot be read (")


def test_a_map_that_only_went_through_gdal_is_still_good(target, tmp_path):
    assert verify(changed(target, tmp_path / "other.tif")).faults == []


@pytest.mark.parametrize(
    "moved", [{"crs": "EPSG:32755"}, {"transform": ORIGIN @ Affine.translation(0.01, 0)}]
)
def test_a_map_that_lies_elsewhere_is_found(target, tmp_path, moved):
    verdict = verify(changed(target, tmp_path / "other.tif", **moved), blocks=1)
    assert verdict.faults == ["CRS or transform are not those of the plan"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_map_of_pixels_alone_is_good_whichever_way_they_are_counted(tmp_path):
    """Rows that count downwards and no CRS: that is no place, and the map is written with none."""
    grid = Affine(1, 0, 0, 0, -1, 0)
    image = write_raster(tmp_path / "image.tif", noise(300, 300), crs=None, transform=grid)
    tilemapper.render(image, tmp_path / "map.tif", "identity")
    assert verify(tmp_path / "map.tif", blocks=1).faults == []
    moved = changed(tmp_path / "map.tif", tmp_path / "moved.tif", transform=ORIGIN)
    assert not verify(moved, blocks=0).ok


def test_in_degrees_a_tenth_of_a_percent_of_a_pixel_counts(tmp_path):
    grid = Affine(8e-6, 0, -73, 0, -8e-6, 40)
    city = write_raster(tmp_path / "city.tif", noise(300, 300), crs="EPSG:4326", transform=grid)
    target = tmp_path / "map.tif"
    tilemapper.render(city, target, "identity", gsd="native")
    assert verify(target).ok
    wider = Affine(8.008e-6, 0, -73, 0, -8e-6, 40)
    assert not verify(changed(target, tmp_path / "other.tif", transform=wider), blocks=0).ok


def with_overviews(target, out, painted):
    """The map's own pixels above overviews that were made of others."""
    loose = out.with_suffix(".loose.tif")
    with rasterio.open(target) as src:
        profile, pixels, tags = src.profile, src.read(), src.tags()
    profile = {key: profile[key] for key in ("width", "height", "count", "dtype", "crs")}
    with rasterio.open(loose, "w", driver="GTiff", transform=ORIGIN, **profile) as dst:
        dst.write(painted(pixels))
        dst.update_tags(**tags)
    with rasterio.open(loose, "r+") as dst:
        dst.build_overviews([2], Resampling.average)
    with rasterio.open(loose, "r+") as dst:
        dst.write(pixels)
    rasterio.shutil.copy(
        loose, out, driver="COG", compress="DEFLATE", overviews="FORCE_USE_EXISTING"
    )
    return out


def test_overviews_of_another_picture_are_found(target, tmp_path):
    assert verify(with_overviews(target, tmp_path / "same.tif", np.copy)).faults == []
    black = verify(with_overviews(target, tmp_path / "black.tif", np.zeros_like), blocks=1)
    assert black.faults == ["overview 1 shows another picture at r0000000-c0000000"]

    def spotted(pixels):
        pixels = pixels.copy()
        pixels[:, 300:364, 300:364] = 0
        return pixels

    assert not verify(with_overviews(target, tmp_path / "spot.tif", spotted), blocks=1).ok


@pytest.mark.parametrize("height", [1031, 1027, 3])
def test_overviews_that_gdal_makes_of_an_odd_number_of_pixels_are_good(
    make_raster, tmp_path, height
):
    """Its COG driver rounds half a pixel down where it does not take those that are there."""
    plain = make_raster(height, 1501)
    options = {"COMPRESS": "ZSTD", "OVERVIEWS": "IGNORE_EXISTING", "BLOCKSIZE": "256"}
    target = tmp_path / "map.tif"
    tilemapper.render(plain, target, "constant", gsd="native", creation_options=options)
    with rasterio.open(target) as dst, rasterio.open(target, overview_level=0) as above:
        assert (above.height, above.width) == (dst.height // 2, dst.width // 2)
    assert verify(target).faults == []


@pytest.mark.parametrize(("height", "width"), [(12, 17), (70, 1027)])
def test_overviews_that_gdal_makes_of_a_mask_of_single_pixels_are_good(tmp_path, height, width):
    """It takes one pixel of four, where we keep what any of them is; small ones have no mean."""
    mask = noise(height, width, seed=1)[0] > 80
    plain = write_raster(tmp_path / "plain.tif", noise(height, width), mask=mask)
    target = tmp_path / "map.tif"
    rasterio.shutil.copy(plain, target, driver="COG", overview_count="3")
    with rasterio.open(target) as dst:
        assert overview_fault(str(target), dst, kind="map", lossless=True, seed=0) == ""


def test_overviews_with_the_mask_of_another_picture_are_found(tmp_path):
    """By what is masked all around, whichever of both is the masked one."""
    mask = np.indices((200, 220)).sum(axis=0) % 100 < 50
    target = write_raster(tmp_path / "map.tif", np.full((3, 200, 220), 99, np.uint8), mask=mask)
    with rasterio.open(target, "r+") as dst:
        dst.build_overviews([2])
    for other in (mask | True, mask & False):
        with rasterio.open(target, "r+") as dst:
            dst.write_mask(other)
        with rasterio.open(target) as dst:
            fault = overview_fault(str(target), dst, kind="map", lossless=True, seed=0)
        assert fault == "overview 1 shows another picture at r0000000-c0000000"


@pytest.mark.parametrize("model", ["classes", "unet"])
def test_overviews_of_a_masked_map_and_its_layers_are_good(tmp_path, model):
    mask = np.ones((1100, 1301), bool)
    mask[:600, :333] = mask[700:731, 801:] = False
    city = write_raster(tmp_path / "city.tif", noise(1100, 1301), mask=mask)
    layers = {"uncertainty": tmp_path / "doubt.tif"}
    if model == "classes":
        layers["classes"] = tmp_path / "classes.tif"
    tilemapper.render(city, tmp_path / "map.tif", model, gsd="native", **layers)
    for path in (tmp_path / "map.tif", *layers.values()):
        verdict = verify(path, blocks=0)
        assert (verdict.faults, "overviews" in verdict.checked) == ([], True)


@pytest.mark.parametrize("compress", ["JPEG", "WEBP"])
@pytest.mark.parametrize("quality", ["75", "20"])
def test_a_lossy_map_has_good_overviews(make_raster, tmp_path, compress, quality):
    target = tmp_path / "map.tif"
    options = {"COMPRESS": compress, "QUALITY": quality}
    tilemapper.render(make_raster(700, 600), target, "unet", gsd="native", creation_options=options)
    assert verify(target).faults == []


def test_black_overviews_of_a_lossy_map_are_found(make_raster, tmp_path):
    target = tmp_path / "map.tif"
    options = {"COMPRESS": "JPEG"}
    tilemapper.render(make_raster(700, 600), target, "unet", gsd="native", creation_options=options)
    with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
        pixels = dst.read()
        dst.write(np.zeros_like(pixels))
        dst.build_overviews([2], Resampling.average)
        dst.write(pixels)
    with rasterio.open(target) as dst:  # no COG any more, which verify says first
        fault = overview_fault(str(target), dst, kind="map", lossless=False, seed=0)
    assert "overview 1 shows another picture" in fault


def test_an_address_that_only_the_map_names_is_not_opened(target, tmp_path, capfd):
    plan = plan_of(target)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        plan["source"]["path"] = f"http://127.0.0.1:{server.getsockname()[1]}/beacon.tif"
        other = changed(target, tmp_path / "other.tif", plan=json.dumps(plan))
        assert run(cli, ["verify", str(other)]) == 1
        with pytest.raises(BlockingIOError):
            server.accept()
    error = capfd.readouterr().err
    assert "its source is remote" in error
    assert "--source URL" in error
    assert error.count("\n") == 1
    # The one that was named is taken.
    assert run(cli, ["verify", str(other), "--source", str(tmp_path / "city.tif")]) == 0


def test_an_uncommon_driver_that_only_the_map_names_is_not_used(target, tmp_path):
    plan = plan_of(target)
    plan["source"] |= {"driver": "VRT", "path": str(tmp_path / "city.vrt")}
    rasterio.shutil.copy(tmp_path / "city.tif", tmp_path / "city.vrt", driver="VRT")
    other = changed(target, tmp_path / "other.tif", plan=json.dumps(plan))
    with pytest.raises(RasterError, match=r"a VRT file .* name it with --source"):
        verify(other)


def without_fill(plan):
    del plan["source"]["fill"]


def with_words(plan):
    plan["overlap"] = "much"


def with_list(plan):
    plan["source"] = []


def with_a_batch_that_no_host_holds(plan):
    plan["batch_size"] = 10**9


def with_a_batch_in_words(plan):
    plan["batch_size"] = "all"


def with_a_tile_that_is_not_the_models(plan):
    plan["tile"] = 288


def with_another_crs(plan):
    plan["source"]["crs_wkt"] = "nowhere"


def with_an_area_of_no_polygons(plan):
    plan["source"]["aoi"] = {"type": "Point", "coordinates": [1, 2]}


@pytest.mark.parametrize(
    "damage",
    [
        None,
        without_fill,
        with_words,
        with_list,
        with_another_crs,
        with_a_batch_that_no_host_holds,
        with_a_batch_in_words,
        with_a_tile_that_is_not_the_models,
        with_an_area_of_no_polygons,
    ],
)
def test_a_damaged_plan_is_said_in_one_line(target, tmp_path, damage):
    plan = plan_of(target)
    if damage is not None:
        damage(plan)
    text = "{broken" if damage is None else json.dumps(plan)
    other = changed(target, tmp_path / "other.tif", plan=text)
    with pytest.raises(RasterError, match="TILEMAPPER_PLAN tag is damaged") as caught:
        verify(other)
    assert "\n" not in str(caught.value)


def test_damage_in_the_description_of_the_layout_is_said_in_one_line(target, capfd):
    whole = bytearray(target.read_bytes())
    whole[whole.index(b"LAYOUT=")] ^= 0x80  # no UTF-8 any more
    target.write_bytes(whole)
    assert run(cli, ["verify", str(target)]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"error: {target}: no valid COG: ")
    assert (said.count("\n"), said.count("defect")) == (1, 0)


def test_a_plain_geotiff_that_was_asked_for_is_no_bad_cog(make_raster, tmp_path):
    city, target = make_raster(700, 600), tmp_path / "map.tif"
    doubt = tmp_path / "doubt.tif"
    striped = {"TILED": "NO", "COMPRESS": "LZW"}
    tilemapper.render(
        city, target, "identity", gsd="native", driver="GTiff", creation_options=striped,
        uncertainty=doubt,
    )  # fmt: skip
    verdict = verify(target, blocks=1)
    assert verdict.ok and "cloud optimized" not in verdict.checked
    assert "cloud optimized" in verify(doubt, blocks=1).checked


def test_a_map_that_says_nothing_of_its_driver_has_to_be_a_cog(target, tmp_path):
    rasterio.shutil.copy(target, tmp_path / "striped.tif", driver="GTiff", TILED="NO")
    (fault,) = verify(tmp_path / "striped.tif", blocks=0).faults
    assert fault.startswith("no valid COG")


def test_a_map_of_pixels_alone_is_verified_without_a_word_of_the_library(tmp_path):
    with pytest.warns(NotGeoreferencedWarning):
        image = write_raster(tmp_path / "image.tif", noise(64, 64), crs=None, transform=None)
    tilemapper.render(image, tmp_path / "map.tif", "identity")
    assert verify(tmp_path / "map.tif", blocks=1).ok  # a warning would be an error here
