"""The synthetic city: pure function of seed, size and place; all classes; constant memory."""

from __future__ import annotations

import errno
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.testing import assert_array_equal
from rasterio.errors import RasterioIOError

from tilemapper.errors import DiskFullError, OptionError, TargetError
from tilemapper.raster import writing
from tilemapper.raster.writing import GridWriter
from tilemapper.report.city import CRS, GSD_M, files, paint, tones, write_city
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice, direction, hashed, spline_noise
from tilemapper.report.city.district import paint_district
from tilemapper.report.city.painter import _Kept
from tilemapper.report.city.plan import Plan
from tilemapper.report.city.tones import MAP_CLASSES

SIZE = (2048, 2048)
CHECKSUMS = (1990472288, 490584547)
DICE = [0.698699342, 0.900610909, 0.28014258]


@pytest.fixture(scope="module")
def city() -> tuple[np.ndarray, np.ndarray]:
    return paint(0, SIZE, 0, 0, *SIZE)


def shares(truth: np.ndarray) -> dict[str, float]:
    red, green, blue = np.moveaxis(truth.astype(np.int32), 2, 0)
    counts = np.bincount((red << 16 | green << 8 | blue).ravel(), minlength=1 << 24)
    return {name: counts[r << 16 | g << 8 | b] / blue.size for name, (r, g, b) in MAP_CLASSES}


def test_windows_painted_apart_equal_the_city_painted_at_once(city):
    draw = np.random.default_rng(5)
    for _ in range(12):
        row, col = (int(v) for v in draw.integers(0, 1800, 2))
        height, width = (int(v) for v in draw.integers(1, 248, 2))
        for whole, window in zip(city, paint(0, SIZE, row, col, height, width), strict=True):
            assert_array_equal(window, whole[row : row + height, col : col + width])


def test_one_pixel_windows_equal_the_city(city):
    for row, col in ((0, 0), (511, 512), (512, 511), (2047, 2047), (1023, 1024)):
        satellite, truth = paint(0, SIZE, row, col, 1, 1)
        assert_array_equal(satellite[0, 0], city[0][row, col])
        assert_array_equal(truth[0, 0], city[1][row, col])


@pytest.mark.parametrize("corner", [(39_700, 12_345), (399_000, 399_500)])
def test_windows_agree_far_from_the_origin(corner):
    row, col = corner
    size = (400_000, 400_000)
    satellite, truth = paint(3, size, row, col, 300, 200)
    part = paint(3, size, row + 100, col + 50, 120, 90)
    assert_array_equal(part[0], satellite[100:220, 50:140])
    assert_array_equal(part[1], truth[100:220, 50:140])


def test_the_pixels_are_those_of_every_other_machine():
    # A new checksum is right after a change of the picture, and after nothing else.
    satellite, truth = paint(7, (700, 900), 200, 300, 64, 96)
    assert (zlib.crc32(satellite.tobytes()), zlib.crc32(truth.tobytes())) == CHECKSUMS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_has_a_plausible_share_in_a_city_of_2048(city, seed):
    share = shares((paint(seed, SIZE, 0, 0, *SIZE) if seed else city)[1])
    assert abs(sum(share.values()) - 1.0) < 1e-9  # the truth holds no other colour
    for name, low, high in (
        ("land", 0.15, 0.5), ("building", 0.08, 0.3), ("water", 0.04, 0.25), ("grey", 0.005, 0.2),
        ("park", 0.03, 0.25), ("road", 0.08, 0.2), ("outline", 0.01, 0.05),
        ("motorway", 0.005, 0.04), ("ramp", 0.001, 0.02), ("casing", 0.001, 0.02),
        ("pitch", 0.001, 0.05), ("forest", 0.003, 0.15), ("sand", 1e-4, 0.02),
        ("campus", 0.001, 0.1), ("hospital", 5e-4, 0.05),
    ):  # fmt: skip
        assert low <= share[name] <= high, f"seed {seed}: {name} {share[name]:.4f}"


def test_tones_are_those_of_the_training_imagery(city):
    satellite, truth = city
    mean, spread = satellite.mean(), satellite.std()
    assert 50 < mean < 72 and 28 < spread < 44  # maps set: 61 and 39
    thin, colours = satellite[::4, ::4], dict(MAP_CLASSES)
    tone = {
        name: thin[(truth[::4, ::4] == colours[name]).all(axis=2)].mean()
        for name in ("water", "park", "road", "building")
    }
    assert tone["water"] < tone["park"] < tone["road"] < tone["building"]
    assert 28 < tone["water"] < 42 and 45 < tone["road"] < 75 and 75 < tone["building"] < 115


def test_seeds_give_different_cities():
    assert (
        paint(0, (256, 256), 0, 0, 256, 256)[1] != paint(1, (256, 256), 0, 0, 256, 256)[1]
    ).any()


def test_a_city_without_pixels_is_refused():
    with pytest.raises(OptionError, match="at least 1 x 1"):
        paint(0, (0, 5), 0, 0, 1, 1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (100, 300), (513, 1025)])
def test_files_hold_the_painted_pixels_and_their_place(tmp_path, height, width):
    done = write_city(
        tmp_path / "c.tif", truth=tmp_path / "m.tif", height=height, width=width, seed=4
    )
    assert (done.height, done.width) == (height, width)
    for path, painted in zip(
        (done.city, done.truth), paint(4, (height, width), 0, 0, height, width), strict=True
    ):
        with rasterio.open(path) as src:
            assert_array_equal(src.read().transpose(1, 2, 0), painted)
            assert src.crs == CRS and src.res == (GSD_M, GSD_M)
            assert src.profile["compress"] == "deflate"
            assert src.block_shapes == [(512, 512)] * 3
            assert "invented" in src.tags()["TIFFTAG_IMAGEDESCRIPTION"]
            assert src.tags()["TIFFTAG_SOFTWARE"].startswith("tilemapper ")


def test_the_same_seed_and_size_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WINDOW", 512)  # several windows in several threads
    options = {"height": 600, "width": 1100, "seed": 9}
    write_city(tmp_path / "a.tif", truth=tmp_path / "am.tif", **options)
    write_city(tmp_path / "b.tif", truth=tmp_path / "bm.tif", **options)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert (tmp_path / "am.tif").read_bytes() == (tmp_path / "bm.tif").read_bytes()


def seed_in(path: Path) -> str:
    with rasterio.open(path) as src:
        return src.tags()["TIFFTAG_IMAGEDESCRIPTION"].split(":")[0].rpartition(" ")[2]


def test_a_city_that_another_run_has_written_meanwhile_is_left(tmp_path):
    paths = {"city": tmp_path / "city.tif", "truth": tmp_path / "map.tif"}

    def meanwhile(_pixels: int) -> None:
        write_city(**paths, height=5, width=5, seed=1)

    with pytest.raises(TargetError, match=r"city\.tif: exists already"):
        write_city(**paths, height=5, width=5, seed=2, progress=meanwhile)
    assert [seed_in(path) for path in paths.values()] == ["1", "1"]
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


def test_two_that_replace_a_city_at_once_leave_its_own_map_beside_it(tmp_path, monkeypatch):
    paths = {"city": tmp_path / "city.tif", "truth": tmp_path / "map.tif"}
    size, real, others = {"height": 5, "width": 5, "overwrite": True}, Path.replace, []

    def between(part: Path, path: Path) -> Path:
        done = real(part, path)
        if not others:
            work = {**paths, **size, "seed": 2}
            others.append(threading.Thread(target=write_city, kwargs=work))
            others[0].start()
            others[0].join(1)
        return done

    monkeypatch.setattr(Path, "replace", between)
    write_city(**paths, **size, seed=1)
    others[0].join()
    assert [seed_in(path) for path in paths.values()] == ["2", "2"]


def test_an_existing_file_stays_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "city.tif"
    path.write_bytes(b"precious")
    with pytest.raises(TargetError, match="--overwrite"):
        write_city(path, height=5, width=5)
    assert path.read_bytes() == b"precious"
    write_city(path, height=5, width=5, overwrite=True)
    with rasterio.open(path) as src:
        assert src.shape == (5, 5)


def test_imagery_and_map_need_two_paths(tmp_path):
    with pytest.raises(OptionError, match="two paths"):
        write_city(tmp_path / "a.tif", truth=tmp_path / "sub" / ".." / "a.tif", height=5, width=5)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TargetError, match=r"folder .* is missing"):
        write_city(tmp_path / "no" / "a.tif", height=5, width=5)


@pytest.mark.fault
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, nth):
    monkeypatch.setattr(files, "_WINDOW", 512)
    calls = []
    write = GridWriter.write

    def failing(self, *args, **options):
        calls.append(1)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *args, **options)

    monkeypatch.setattr(GridWriter, "write", failing)
    with pytest.raises(DiskFullError, match="No space left"):
        write_city(tmp_path / "a.tif", truth=tmp_path / "b.tif", height=600, width=600)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nth", [1, 2])
def test_a_file_that_does_not_read_back_takes_the_other_with_it(tmp_path, monkeypatch, nth):
    calls = []
    read_back = writing._read_back

    def failing(*args):
        calls.append(1)
        if len(calls) == nth:
            raise RasterioIOError("TIFFFillTile: read error")
        read_back(*args)

    monkeypatch.setattr(writing, "_read_back", failing)
    name = ("city.tif", "map.tif")[nth - 1]
    with pytest.raises(TargetError, match=rf"{name}: cannot be written"):
        write_city(tmp_path / "city.tif", truth=tmp_path / "map.tif", height=5, width=5)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beside_a_sheet_is_not_painted_on_its_other_side():
    canvas = Canvas(60, 80, (1.0, 0.0))
    empty = canvas.packed()
    for outline in ((-30, 10, -5, 40), (10, -30, 40, -5), (-9, -9, -3, -3), (90, 10, 99, 40)):
        canvas.fill(*outline, tones.COURT, tones.PITCH)
        assert_array_equal(canvas.packed(), empty)
    canvas.fill(-5, -5, 3, 2, tones.COURT, tones.PITCH)
    assert (canvas.ground == tones.PITCH).sum() == 6


def test_a_ball_field_beyond_a_district_leaves_its_streets():
    plan = Plan(1, (1200.0, 700.0))
    ground = paint_district(plan, plan.district(1, 5)).packed >> 8
    assert (ground == tones.PITCH).sum(axis=1).max() <= 50  # no field of a block is wider


def test_sheets_are_kept_up_to_a_limit_only():
    kept: _Kept[int] = _Kept(3)
    made = []

    def make(key: int) -> int:
        made.append(key)
        return key

    for key in (0, 1, 2, 0, 3, 0, 1):
        assert kept.get(key, lambda key=key: make(key)) == key
    assert made == [0, 1, 2, 3, 1]
    assert len(kept._values) == 3 and not kept._making


def test_numbers_of_the_dice_are_fixed():
    dice = Dice(1, 2)
    assert [round(v, 9) for v in dice.numbers(3).tolist()] == DICE
    assert Dice(1, 2).number() == pytest.approx(DICE[0], abs=1e-9)
    assert Dice(2, 1).number() != pytest.approx(DICE[0], abs=1e-9)
    values = hashed(5, np.arange(-5000, 5000))
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02


def test_spline_noise_is_smooth_and_bounded():
    noise = spline_noise(3, np.arange(5000), 100.0)
    assert np.abs(noise).max() <= 1.0
    assert np.abs(np.diff(noise)).max() < 0.05


def test_directions_are_unit_vectors():
    for turn in (-1.0, -0.3, 0.0, 0.77):
        c, s = direction(turn)
        assert c * c + s * s == pytest.approx(1.0)


def test_unwarped_places_warp_back():
    plan = Plan(0, (500.0, 500.0))
    x, y = np.linspace(-900, 5000, 60), np.linspace(4000, -700, 60)
    flat_x, flat_y = plan.unwarp(x, y)
    shift_x, shift_y = plan.warp(flat_x, flat_y)
    assert np.abs(flat_x + shift_x - x).max() < 0.1
    assert np.abs(flat_y + shift_y - y).max() < 0.1


def test_files_of_a_synthetic_city_say_which_seed(tmp_path: Path):
    write_city(tmp_path / "a.tif", height=3, width=3, seed=123)
    with rasterio.open(tmp_path / "a.tif") as src:
        assert "seed 123" in src.tags()["TIFFTAG_IMAGEDESCRIPTION"]
