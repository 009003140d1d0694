import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from tests.training.images import load_all, make_map, make_pair
from tilemapper.errors import (
    DiskFullError,
    LockedError,
    OptionError,
    PairError,
    RasterError,
    TargetError,
)
from tilemapper.training import cutting, newfolder
from tilemapper.training.cutting import CutOptions, cut_pairs
from tilemapper.training.pairs import open_pairs, split_pairs
from tilemapper.training.split import find_overlaps

UTM = "EPSG:32633"
ORIGIN = (500_000.0, 5_200_000.0)


def from_origin(west, north, width, height):
    return Affine(width, 0, west, 0, -height, north)


def write(path, pixels, *, crs=UTM, transform=None, nodata=None):
    transform = transform or from_origin(*ORIGIN, 1, 1)
    height, width = pixels.shape[:2]
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", crs=crs,
        transform=transform, nodata=nodata, photometric="RGB",
    ) as dst:  # fmt: skip
        dst.write(pixels.transpose(2, 0, 1))
    return str(path)


@pytest.fixture
def rasters(tmp_path):
    satellite, target = make_pair(4, 300)
    return write(tmp_path / "a.tif", satellite), write(tmp_path / "b.tif", target)


def test_pairs_on_one_grid_are_cut_pixel_by_pixel_and_read_back_as_pairs(tmp_path, rasters):
    result = cut_pairs(*rasters, tmp_path / "out", options=CutOptions(tile=128))
    assert result.names == [f"r{r:06d}_c{c:06d}" for r in (0, 128) for c in (0, 128)]
    source = open_pairs(tmp_path / "out")
    assert source.names == result.names
    satellite, target = make_pair(4, 300)
    arrays = load_all(source)
    assert_array_equal(arrays[0][3], satellite[128:256, 128:256])
    assert_array_equal(arrays[1][1], target[:128, 128:256])


def test_tiles_carry_their_place_and_the_index_names_it(tmp_path, rasters):
    cut_pairs(*rasters, tmp_path / "out", options=CutOptions(tile=128, stride=100))
    lines = list(csv.DictReader((tmp_path / "out" / "index.csv").read_text().splitlines()))
    assert len(lines) == 4
    for line in lines:
        for side in "AB":
            with rasterio.open(tmp_path / "out" / side / f"{line['name']}.tif") as tile:
                assert tile.crs == UTM
                assert tile.bounds == tuple(
                    float(line[k]) for k in ("left", "bottom", "right", "top")
                )
        assert float(line["left"]) == ORIGIN[0] + int(line["col"])
        assert float(line["top"]) == ORIGIN[1] - int(line["row"])


def test_no_ground_of_overlapping_tiles_is_both_learned_from_and_held_out(tmp_path):
    satellite, target = make_pair(8, 384)
    rasters = write(tmp_path / "a.tif", satellite), write(tmp_path / "b.tif", target)
    cut_pairs(*rasters, tmp_path / "out", options=CutOptions(tile=96, stride=40))
    source = open_pairs(tmp_path / "out")
    split = split_pairs(source, overlaps=find_overlaps(tmp_path / "out", None))
    assert (len(source), len(split.held_out)) == (64, 6)
    assert len(split.train) > 20
    places = [(int(name[1:7]), int(name[9:])) for name in source.names]
    learned, held_out = np.zeros((2, 384, 384), bool)
    for ground, part in ((learned, split.train), (held_out, split.held_out)):
        for row, col in (places[i] for i in part):
            ground[row : row + 96, col : col + 96] = True
    assert not (learned & held_out).any()
    # Nothing is left out that could be learned from.
    rest = set(range(len(source))) - {*split.train, *split.held_out}
    assert all(
        held_out[row : row + 96, col : col + 96].any() for row, col in (places[i] for i in rest)
    )
    cut_pairs(*rasters, tmp_path / "apart", options=CutOptions(tile=96, stride=96))
    assert find_overlaps(tmp_path / "apart", None) is None


def test_a_map_of_another_crs_resolution_and_footprint_is_warped_onto_the_imagery(tmp_path):
    satellite, target = make_pair(5, 384)
    imagery = write(tmp_path / "a.tif", satellite)
    # The map covers the east part only, in degrees, at half the pixel size.
    bounds = transform_bounds(
        UTM, "EPSG:4326", ORIGIN[0] + 100, ORIGIN[1] - 390, ORIGIN[0] + 390, ORIGIN[1] + 6
    )
    step = (bounds[2] - bounds[0]) / 600
    there = from_origin(bounds[0], bounds[3], step, step)
    height = int((bounds[3] - bounds[1]) / step)
    warped = np.zeros((3, height, 600), np.uint8)
    reproject(
        target.transpose(2, 0, 1).copy(), warped,
        src_crs=UTM, src_transform=from_origin(*ORIGIN, 1, 1),
        dst_crs="EPSG:4326", dst_transform=there, resampling=Resampling.nearest,
    )  # fmt: skip
    map_path = write(
        tmp_path / "b.tif", warped.transpose(1, 2, 0), crs="EPSG:4326", transform=there, nodata=0
    )
    result = cut_pairs(imagery, map_path, tmp_path / "out", options=CutOptions(tile=128))
    assert result.names == [f"r{r:06d}_c{c:06d}" for r in (0, 128, 256) for c in (128, 256)]
    assert result.skipped == 3
    source, cut = open_pairs(tmp_path / "out").load(0)
    assert_array_equal(source, satellite[:128, 128:256])
    # Nearest twice: edges may move by a pixel, areas may not.
    assert (cut == target[:128, 128:256]).all(-1).mean() > 0.9


def test_another_resolution_is_cut_at_the_wanted_one(tmp_path, rasters):
    result = cut_pairs(*rasters, tmp_path / "out", options=CutOptions(gsd=2.0, tile=64))
    assert len(result.names) == 4
    with rasterio.open(tmp_path / "out" / "B" / f"{result.names[0]}.tif") as tile:
        # A metre of this zone is 0.9996 m on the ground at its middle.
        assert tile.res == pytest.approx((2.0, 2.0), rel=1e-3)


def test_places_with_too_few_valid_pixels_are_skipped_or_filled(tmp_path):
    satellite, target = make_pair(6, 256)
    satellite = np.maximum(satellite, 1)
    satellite[:40, :40] = 0  # 10 % of the first tile
    imagery = write(tmp_path / "a.tif", satellite, nodata=0)
    map_path = write(tmp_path / "b.tif", target)
    strict = cut_pairs(imagery, map_path, tmp_path / "x", options=CutOptions(tile=128))
    assert (len(strict.names), strict.skipped) == (3, 1)
    options = CutOptions(tile=128, min_valid=0.8)
    assert len(cut_pairs(imagery, map_path, tmp_path / "y", options=options).names) == 4
    filled = open_pairs(tmp_path / "y").load(0)[0]
    assert filled[:40, :40].min() > 0


def test_a_paletted_map_is_cut_in_its_colours(tmp_path):
    imagery = write(tmp_path / "a.tif", make_pair(7, 128)[0])
    classes = np.random.default_rng(0).integers(0, 3, (128, 128), np.uint8)
    colours = {0: (232, 228, 224), 1: (255, 255, 255), 2: (177, 209, 255)}
    with rasterio.open(
        tmp_path / "b.tif", "w", driver="GTiff", height=128, width=128, count=1, dtype="uint8",
        crs=UTM, transform=from_origin(*ORIGIN, 1, 1), photometric="palette",
    ) as dst:  # fmt: skip
        dst.write(classes, 1)
        dst.write_colormap(1, colours)
    cut_pairs(imagery, str(tmp_path / "b.tif"), tmp_path / "out", options=CutOptions(tile=128))
    table = np.array(list(colours.values()), np.uint8)
    assert_array_equal(open_pairs(tmp_path / "out").load(0)[1], table[classes])


def test_a_folder_in_use_is_left_alone(tmp_path, rasters):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(TargetError, match="in use"):
        cut_pairs(*rasters, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_rasters_of_different_ground_or_too_small_ones_are_refused(tmp_path, rasters):
    far = write(tmp_path / "far.tif", make_map(1), transform=from_origin(600_000, 5_200_000, 1, 1))
    for second, tile in ((far, 64), (rasters[1], 512)):
        with pytest.raises(PairError, match="none of"):
            cut_pairs(rasters[0], second, tmp_path / "out", options=CutOptions(tile=tile))
        assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_without_crs_is_refused(tmp_path, rasters):
    plain = write(tmp_path / "p.tif", make_map(1), crs=None)
    for first, second in ((plain, rasters[1]), (rasters[0], plain)):
        with pytest.raises(RasterError, match=r"p\.tif: no CRS"):
            cut_pairs(first, second, tmp_path / "out", options=CutOptions(tile=64))


def test_options_that_make_no_sense_are_refused():
    for wrong in ({"tile": 4}, {"stride": 0}, {"min_valid": 0}, {"resampling": "cubic"}):
        with pytest.raises(OptionError):
            CutOptions(**wrong)


@pytest.mark.parametrize("moment", ["write_text_atomic", "_placed"])
def test_what_a_killed_cut_left_is_no_set_of_pairs_and_the_same_call_ends_right(
    tmp_path, rasters, monkeypatch, moment
):
    class Killed(BaseException):
        pass

    def dies(*_args, **_more):
        raise Killed

    out = tmp_path / "out"
    options = CutOptions(tile=128)
    with monkeypatch.context() as patch:
        # A kill runs no clean-up.
        patch.setattr(newfolder, "_clear", lambda *_: None)
        patch.setattr(newfolder.Path, "rmdir", lambda _: None)
        patch.setattr(cutting, moment, dies)
        with pytest.raises(Killed):
            cut_pairs(*rasters, out, options=options)
    assert (out / ".part" / "A").is_dir()
    with pytest.raises(PairError, match="no image found"):
        open_pairs(out)
    assert len(cut_pairs(*rasters, out, options=options).names) == 4
    assert sorted(path.name for path in out.iterdir()) == ["A", "B", "index.csv"]


def test_a_cut_that_fails_leaves_nothing_and_two_at_once_do_not_mix(tmp_path, rasters):
    out = tmp_path / "out"

    def second(_done, _total):
        with pytest.raises(LockedError, match="another run"):
            cut_pairs(*rasters, out, options=CutOptions(tile=128))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_pairs(*rasters, out, options=CutOptions(tile=128), on_place=second)
    assert not out.exists()
    out.mkdir()  # a mounted volume is there already
    assert len(cut_pairs(*rasters, out, options=CutOptions(tile=128)).names) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_tile_that_cannot_be_written_whole_is_told(tmp_path, rasters, monkeypatch):
    """GDAL closes a file on a full disk without an error; what it wrote is garbage."""
    usual = Path.open

    def full(self, *args, **more):
        return usual(Path("/dev/full") if ".tmp" in self.name else self, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFullError, match="free some space"):
        cut_pairs(*rasters, tmp_path / "out", options=CutOptions(tile=128))
    assert not (tmp_path / "out").exists()


SITE = 'LOCAL_CS["site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]'


@pytest.mark.parametrize(
    "where", [{"crs": SITE}, {"transform": Affine(1, 1, ORIGIN[0], 1, 1, ORIGIN[1])}]
)
def test_a_map_that_no_way_leads_to_is_named_on_one_line(tmp_path, rasters, where):
    lost = write(tmp_path / "lost.tif", make_map(0, 300), **where)
    words = r"lost\.tif: cannot be laid on the imagery's grid \(from .+ to WGS 84 / UTM zone 33N: "
    with pytest.raises(RasterError, match=words) as refused:
        cut_pairs(rasters[0], lost, tmp_path / "out", options=CutOptions(tile=128))
    assert len(str(refused.value)) < 500
    assert not (tmp_path / "out").exists()
