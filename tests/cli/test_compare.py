"""``tilemapper compare`` and ``render --report`` as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

import tilemapper as package
from tests.conftest import ORIGIN, noise, read_raster, write_raster
from tilemapper.api import compare as door
from tilemapper.cli.main import cli, run
from tilemapper.cli.report import write_report
from tilemapper.errors import DeviceError
from tilemapper.raster.lattice import Lattice
from tilemapper.render.outcome import RenderResult
from tilemapper.render.plan import DEFAULT_BLOCK
from tilemapper.report.seam_figures import SeamGroup, SeamJump
from tilemapper.report.seam_verdict import standing_out
from tilemapper.report.seams import BLOCK

MAP_COLOURS = np.array([(232, 228, 224), (177, 209, 255), (255, 255, 255)], np.uint8)


@pytest.fixture
def tilemapper(capfd, monkeypatch, models):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))

    def call(*args: object) -> tuple[int, str, str]:
        code = run(cli, [str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, models):
    """A city of 500 x 620 px and its map by the palette stand-in."""
    folder = tmp_path_factory.mktemp("rendered")
    city = write_raster(folder / "city.tif", noise(500, 620))
    return city, package.render(city, folder / "map.tif", models / "classes").target


@pytest.fixture
def pair(rendered, tmp_path):
    """City and map, the test's own."""
    return tuple(Path(shutil.copy2(path, tmp_path)) for path in rendered)


def self_contained(page: Path) -> str:
    """The page's text; everything that it shows must be in it."""
    html = page.read_text()
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", html)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "{{" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.S)
    assert not re.search(r"url\(|@import|https?://", html.replace("http://www.w3.org", ""))
    return html


def facts_of(html: str) -> dict:
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', html, re.S)
    return json.loads(found[1])


def test_a_page_has_all_that_is_known_of_a_render(tilemapper, pair, tmp_path):
    city, target = pair
    page, picture = tmp_path / "report.html", tmp_path / "both.png"
    code, out, err = tilemapper(
        "compare", city, target, "--out", page, "--quicklook", picture, "--truth", target
    )
    assert (code, err) == (0, "")
    assert "source the raster that the map was rendered from" in out
    assert "GSI 0.00 grey levels" in out
    assert "road_f1 1.000" in out
    html = self_contained(page)
    for words in (
        "The lattice", "SJI, seam jump index", "OD, overlap disagreement", "GSI, lattice moved",
        "vertical lines, tile starts", "Against the true map", "road_f1", "Classes", "land",
        "water", "12 tiles of 256 px, overlap 64", "fp32 on cpu", "EPSG:32618", "identity, palette",
        "not surveyed",
    ):  # fmt: skip
        assert words in html, words
    facts = facts_of(html)
    assert (facts["height"], facts["width"], facts["shrink"]) == (500, 620, 1)
    assert facts["transform"] == list(ORIGIN)[:6]
    assert facts["lines"]["starts"] == {"rows": [160, 288], "cols": [160, 352, 416]}
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])  # of a PNG's header
    assert (height, width) == (500, 2 * 620 + 8)


def test_json_holds_every_figure(tilemapper, pair):
    code, out, _ = tilemapper("compare", *pair, "--json", "--shift-blocks", "1")
    values = json.loads(out)
    assert code == 0
    assert values["seam_jump"]["lines"] > 0
    assert abs(values["seam_jump"]["excess"]) < 0.1
    assert values["overlap_disagreement"] == 0
    assert values["grid_shift"]["mean"] == 0
    assert sum(values["classes"].values()) == pytest.approx(1, abs=1e-5)
    assert values["page"] is None


def test_a_quicklook_is_a_png_and_takes_no_other_kinds_name(tilemapper, pair, tmp_path):
    code, _, err = tilemapper("compare", *pair, "--quicklook", tmp_path / "both.jpg")
    assert (code, err.count("\n")) == (2, 1)
    assert "both.jpg: .jpg is another kind of file, what is written is PNG; name it both.png" in err
    assert not (tmp_path / "both.jpg").exists()


def test_classes_are_counted_exactly(tilemapper, pair):
    _, target = pair
    code, out, _ = tilemapper("compare", *pair, "--json", "--shift-blocks", "0")
    painted = read_raster(target).transpose(1, 2, 0)
    expected = [float((painted == colour).all(axis=2).mean()) for colour in MAP_COLOURS]
    assert code == 0
    shares = json.loads(out)["classes"]
    assert [shares[name] for name in ("land", "water", "road")] == pytest.approx(expected, abs=1e-6)
    assert json.loads(out)["grid_shift"] is None


def test_rendering_can_leave_the_page_too(tilemapper, make_raster, tmp_path):
    page = tmp_path / "report.html"
    city, target = make_raster(300, 300), tmp_path / "map.tif"
    call = ("render", city, target, "--model", "identity", "--report", page)
    code, _, err = tilemapper(*call)
    assert (code, err) == (0, "")
    html = self_contained(page)
    assert "4 tiles in" in html
    code, _, err = tilemapper(*call[:2], tmp_path / "new.tif", *call[3:])
    assert code == 1
    assert err == f"error: {page}: exists already; give --overwrite to replace it\n"
    assert not (tmp_path / "new.tif").exists()  # refused before the raster was rendered
    code, _, err = tilemapper("render", city, tmp_path / "x", "--report", tmp_path / "x")
    assert (code, "would be one file" in err) == (2, True)


@pytest.mark.parametrize("command", ["render", "compare"])
def test_a_driver_that_gdal_has_not_is_a_matter_of_usage(tilemapper, pair, tmp_path, command):
    source, target = pair
    call = [source, tmp_path / "new.tif"] if command == "render" else [source, target]
    code, out, err = tilemapper(command, *call, "--allow-driver", "NOPE")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: --allow-driver NOPE: no driver of GDAL ")


def test_an_existing_page_needs_overwrite_and_inputs_are_never_replaced(tilemapper, pair, tmp_path):
    page, link = tmp_path / "report.html", tmp_path / "link.html"
    link.symlink_to("unmounted/report.html")
    code, _, err = tilemapper("compare", *pair, "--out", link)
    assert (code, err) == (1, f"error: {link}: exists already; give --overwrite to replace it\n")
    assert link.is_symlink()
    page.write_text("old")
    code, _, err = tilemapper("compare", *pair, "--out", page)
    assert (code, err) == (1, f"error: {page}: exists already; give --overwrite to replace it\n")
    assert page.read_text() == "old"
    code, _, err = tilemapper("compare", *pair, "--out", page, "--overwrite", "--shift-blocks", 0)
    assert (code, err) == (0, "")
    before = pair[1].read_bytes()
    code, _, err = tilemapper("compare", *pair, "--out", pair[1], "--overwrite")
    assert (code, "is the source itself" in err) == (1, True)
    assert pair[1].read_bytes() == before
    code, _, err = tilemapper("compare", *pair, "--out", page, "--quicklook", page, "--overwrite")
    assert (code, "would be one file" in err) == (2, True)
    code, _, err = tilemapper("compare", *pair, "--out", tmp_path / "no" / "page.html")
    assert (code, "no such folder" in err) == (1, True)


@pytest.mark.parametrize("option", ["--out", "--quicklook"])
def test_a_page_that_another_run_has_written_meanwhile_is_left(
    tilemapper, pair, tmp_path, monkeypatch, option
):
    made, real = tmp_path / ("r.html" if option == "--out" else "r.png"), door.compare_laid

    def meanwhile(*arguments, **options):
        made.write_text("another's")
        return real(*arguments, **options)

    monkeypatch.setattr(door, "compare_laid", meanwhile)
    command = ["compare", *pair, option, made, "--shift-blocks", 0]
    code, _, err = tilemapper(*command)
    assert (code, err) == (1, f"error: {made}: exists already; give --overwrite to replace it\n")
    assert made.read_text() == "another's"
    assert tilemapper(*command, "--overwrite")[0] == 0
    assert made.stat().st_size > 100


def test_a_truth_is_judged_by_the_palette_that_is_given(tilemapper, pair, tmp_path):
    job = tmp_path / "palette.toml"
    colours = zip(("field", "rail"), MAP_COLOURS[:2].tolist(), strict=True)
    tables = (f'[[palette]]\nname = "{name}"\ncolour = {colour}\n' for name, colour in colours)
    job.write_text('kind = "training"\n' + "".join(tables))
    asked = ("compare", *pair, "--shift-blocks", "0", "--json", "--palette", job)
    figures = json.loads(tilemapper(*asked, "--truth", pair[1])[1])["truth"]["values"]
    assert [name for name in figures if name.endswith("_iou")] == [
        "field_iou", "rail_iou", "mean_iou",
    ]  # fmt: skip
    code, _, err = tilemapper(*asked)
    assert (code, err.count("\n")) == (2, 1) and "give --truth too" in err


@pytest.mark.parametrize("which", ["source", "truth"])
def test_rasters_of_other_ground_are_refused_in_one_line(tilemapper, pair, tmp_path, which):
    away = Affine(0.9, 0, 683000, 0, -0.9, 4507000)
    other = write_raster(tmp_path / "other.tif", noise(300, 300), transform=away)
    page = tmp_path / "report.html"
    inputs = (other, pair[1]) if which == "source" else (*pair, "--truth", other)
    code, _, err = tilemapper("compare", *inputs, "--out", page, "--shift-blocks", 0)
    assert code == 1
    assert err.startswith(f"error: {other}: ")
    assert err.count("\n") == 1
    assert not page.exists()


def test_another_crs_resolution_and_footprint_are_aligned(tilemapper, tmp_path):
    rows, cols = np.mgrid[:600, :600]
    waves = (128 + 90 * np.sin(rows / 40) * np.cos(cols / 50)).astype(np.uint8)
    city = write_raster(tmp_path / "city.tif", np.stack([waves] * 3))
    # The same ground in degrees, and only a part of it.
    with rasterio.open(city) as src:
        west, _, _, north = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
        grid = Affine(1e-5, 0, west + 1e-3, 0, -1e-5, north - 1e-3)
        options = {"transform": grid, "height": 200, "width": 200}
        with WarpedVRT(src, crs="EPSG:4326", **options) as vrt:
            pixels = vrt.read()
    degrees = write_raster(tmp_path / "degrees.tif", pixels, crs="EPSG:4326", transform=grid)
    page = tmp_path / "report.html"
    code, out, err = tilemapper("compare", city, degrees, "--out", page)
    assert (code, err) == (0, "")
    assert "source warped to the map's CRS from EPSG:32618" in out
    assert facts_of(self_contained(page))["decimals"] == 6


def test_a_map_by_a_model_that_is_not_here_is_still_compared(tilemapper, pair, monkeypatch):
    monkeypatch.setenv("TILEMAPPER_MODELS", "")
    code, out, err = tilemapper("compare", *pair)
    assert (code, err) == (0, "")
    assert "Model classes is not found here" in out
    code, _, err = tilemapper("compare", *pair, "--model", "classes")
    assert (code, "no model of this name or path" in err) == (1, True)


def test_another_model_of_the_same_name_is_not_taken_for_it(tilemapper, pair, models):
    code, _, err = tilemapper("compare", *pair, "--model", models / "unet")
    assert code == 1
    assert "is not the model that painted" in err


def test_text_from_outside_cannot_become_part_of_the_page(tilemapper, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(100, 100))
    target = write_raster(tmp_path / "map<script>alert(1).tif", noise(100, 100))
    with rasterio.open(target, "r+") as dst:
        dst.update_tags(TIFFTAG_SOFTWARE="</footer><script>x</script>{{script}}")
    page = tmp_path / "report.html"
    assert tilemapper("compare", city, target, "--out", page)[0] == 0
    html = page.read_text()
    assert html.count("<script") == 2
    assert "&lt;script&gt;alert(1)" in html


def test_a_missing_or_broken_raster_is_named(tilemapper, pair, tmp_path):
    code, _, err = tilemapper("compare", tmp_path / "none.tif", pair[1])
    assert (code, err) == (1, f"error: {tmp_path / 'none.tif'}: no such file; check the path\n")
    broken = tmp_path / "broken.tif"
    broken.write_bytes(pair[1].read_bytes()[:3000])
    code, _, err = tilemapper("compare", pair[0], broken)
    assert code == 1
    assert err.startswith(f"error: {broken}: ")


def test_a_masked_and_tiny_pair_is_compared(tilemapper, tmp_path):
    mask = np.zeros((40, 30), bool)
    mask[:20] = True
    city = write_raster(tmp_path / "city.tif", noise(40, 30))
    target = write_raster(tmp_path / "map.tif", noise(40, 30), mask=mask)
    page = tmp_path / "report.html"
    code, _, err = tilemapper("compare", city, target, "--out", page)
    assert (code, err) == (0, "")
    assert facts_of(self_contained(page))["heat_box"] is None


def test_the_door_in_python_is_the_same(pair, tmp_path, models, monkeypatch):
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))
    assert package.compare is door.compare
    found = package.compare(*pair, shift_blocks=0)
    assert found.page is None
    assert found.seams.lines > 0
    assert found.card.name == "classes"
    shown = found._repr_html_()
    assert shown.count("data:image/jpeg") == 2
    assert "seam jump index" in shown


def smooth(height: int, width: int) -> np.ndarray:
    """Waves of 40 to 140 grey levels and a little noise: without an edge of its own."""
    rows, cols = np.mgrid[:height, :width]
    waves = 90 + 40 * np.sin(rows / 9) * np.cos(cols / 11)
    return np.stack([waves] * 3) + np.random.default_rng(0).normal(0, 2, (3, height, width))


def test_hard_seams_of_one_kind_of_line_alone_are_called_seams(tilemapper, tmp_path):
    pixels = smooth(1100, 1100)
    stepped = pixels.copy()
    for index, start in enumerate(Lattice(1100, 1100, 64).cols.starts[1:]):
        stepped[:, :, start:] += 20 if index % 2 else -20
    city = write_raster(tmp_path / "city.tif", pixels.clip(0, 255).astype(np.uint8))
    target = write_raster(tmp_path / "map.tif", stepped.clip(0, 255).astype(np.uint8))
    page = tmp_path / "report.html"
    code, out, err = tilemapper("compare", city, target, "--out", page)
    assert (code, err) == (0, "")
    assert re.search(r"shows most at vertical tile starts \(\+\d", out)
    html = page.read_text()
    assert 'class="verdict poor"' in html
    assert "The lattice shows, most of all at vertical tile starts" in html
    code, out, _ = tilemapper("compare", city, city, "--out", page, "--overwrite")
    assert "shows most" not in out
    assert 'class="verdict good"' in page.read_text()


@pytest.mark.parametrize(("lines", "shows"), [(1, False), (2, True), (20, True)])
def test_a_few_lines_may_be_high_by_chance(lines, shows):
    heat = np.zeros((1, 1), np.float32)
    groups = [
        SeamGroup("vertical", "no line", 23, 0.02, 0.1, 32),
        SeamGroup("vertical", "tile ends", lines, 0.42, 0.5, 224),
    ]
    seams = SeamJump(0.0, 0.0, 0.0, 0.0, groups, 10, 10, 1000, True, heat)
    assert (standing_out(seams) is not None) == shows


def test_blocks_that_are_supposed_are_not_stated(tilemapper, pair, tmp_path):
    assert BLOCK == DEFAULT_BLOCK
    page = tmp_path / "report.html"
    call = ("compare", *pair, "--out", page, "--shift-blocks", 0, "--overwrite")
    assert tilemapper(*call)[0] == 0
    assert "of 4096 px (supposed" in page.read_text()
    assert tilemapper(*call, "--block", 512)[0] == 0
    assert "(supposed" not in page.read_text()


def test_the_shift_is_that_of_the_map_in_its_precision_with_its_symmetries(
    tmp_path, models, monkeypatch
):
    city, target = write_raster(tmp_path / "city.tif", noise(400, 400)), tmp_path / "map.tif"
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))
    package.render(city, target, "unet", precision="bf16", tta=True, gsd="native", device="cpu")
    asked = {}

    def noted(*args, **options):
        asked.update(options)
        raise DeviceError("cuda:0: not enough memory for one tile of model unet; free some")

    monkeypatch.setattr(door, "grid_shift", noted)
    found = package.compare(city, target)
    assert (asked["precision"], asked["tta"]) == ("bf16", True)
    # The map stands: a device that is too small for the figure is no error of the comparison.
    assert found.shift is None
    assert any("Grid shift not measured: cuda:0" in notice for notice in found.notices)


@pytest.mark.parametrize(("scheduler", "device"), [("tcp://10.0.0.1:8786", "auto"), (None, "cuda")])
def test_the_page_of_a_cluster_is_measured_on_what_is_here(monkeypatch, scheduler, device):
    asked = {}
    monkeypatch.setattr(door, "compare", lambda *args, **options: asked.update(options))
    result = RenderResult("map.tif", 1, 1, 1, 1, 0, 1.0, 1, "unet", None, None)
    options = {"model": None, "overwrite": False, "allow_drivers": (), "device": "cuda"}
    write_report("page.html", "city.tif", result, options | {"scheduler": scheduler})
    assert asked["device"] == device
