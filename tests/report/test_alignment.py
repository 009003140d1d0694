"""How a source is laid on its map: as planned, by the ground, pixel by pixel, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine

from tests.conftest import ORIGIN, noise, write_raster
from tilemapper.errors import RasterError
from tilemapper.raster.geometry import shifted, stretched
from tilemapper.render.render import render
from tilemapper.report.alignment import lay, open_rendered


def laid(source, target, **kw):
    """The way, and the source's first window on the map's grid."""
    with open_rendered(str(target)) as rendered, lay(str(source), rendered, **kw) as found:
        rgb, valid = found.view.read(row=0, col=0, height=40, width=40)
        picture = found.picture(20, 20)
        return found.how, rgb, valid, picture


def test_a_maps_own_source_is_read_as_the_plan_says(tmp_path, models):
    rows, cols = np.mgrid[:300, :400]
    waves = (128 + 90 * np.sin(rows / 60) * np.cos(cols / 75)).astype(np.uint8)
    source, target = write_raster(tmp_path / "a.tif", np.stack([waves] * 3)), tmp_path / "map.tif"
    bounds = (583000 + 90, 4507000 - 200, 583000 + 300, 4507000 - 45)
    render(source, target, models / "identity", bounds=bounds, gsd=1.8)
    how, rgb, valid, (picture, seen) = laid(source, target)
    assert how == "the raster that the map was rendered from"
    with open_rendered(str(target)) as rendered:
        painted, _ = rendered.view.read(row=0, col=0, height=40, width=40)
        whole, _ = rendered.view.picture(20, 20)
    np.testing.assert_array_equal(rgb, painted)  # an identity: the map is its source
    assert valid.all() and seen.all()
    assert np.abs(picture.astype(int) - whole).max() <= 10  # averaged in two ways


def test_a_grey_source_is_read_with_the_bands_that_the_plan_took(tmp_path, models):
    source, target = tmp_path / "grey.tif", tmp_path / "map.tif"
    write_raster(source, np.full((1, 300, 300), 90, np.uint16))
    render(source, target, models / "identity", bidx=(1, 1, 1), scale=(0, 255))
    how, rgb, valid, _ = laid(source, target)
    assert how == "the raster that the map was rendered from"
    assert (rgb == 90).all() and valid.all()


@pytest.mark.parametrize(
    ("transform", "how"),
    [
        (ORIGIN, "on the map's own grid"),
        (shifted(ORIGIN, row=-10, col=20), "on the map's own grid"),
        (stretched(ORIGIN, rows=0.5, cols=0.5), "resampled to the map's grid"),
        (Affine(0.88, 0.1, ORIGIN.c, 0.1, -0.88, ORIGIN.f), "warped to the map's grid"),
    ],
)
def test_another_raster_is_laid_by_its_place(tmp_path, make_raster, transform, how):
    source = make_raster(300, 300, "other.tif", transform=transform)
    found, _, valid, _ = laid(source, make_raster(120, 120))
    assert found == how
    assert valid.any()


def test_another_crs_is_named(tmp_path, make_raster):
    source = make_raster(3000, 3000, "mercator.tif", crs="EPSG:3857", transform=Affine(
        1.2, 0, -8238000, 0, -1.2, 4970600
    ))  # fmt: skip
    how, _, _, _ = laid(source, make_raster(120, 120))
    assert how == "warped to the map's CRS from EPSG:3857"


def test_a_crs_from_which_no_way_is_known_is_refused_on_one_line(tmp_path, make_raster):
    site = 'LOCAL_CS["site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]'
    source = write_raster(tmp_path / "site.tif", noise(100, 100), crs=site)
    words = r"site\.tif: cannot be laid on the other raster's grid \(from site to WGS 84 / UTM"
    with pytest.raises(RasterError, match=words) as refused:
        laid(source, make_raster(100, 100))
    assert len(str(refused.value)) < 500


def test_a_raster_whose_pixels_are_farther_apart_than_numbers_tell_lies_elsewhere(
    tmp_path, make_raster
):
    far = Affine(1e9, 0, 1e15, 0, -1e9, 1e15)
    source = write_raster(tmp_path / "far.tif", noise(100, 100), transform=far)
    _, _, valid, _ = laid(source, make_raster(100, 100))
    assert not valid.any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_georeferencing_one_size_is_needed(tmp_path, make_raster):
    plain = write_raster(tmp_path / "plain.tif", noise(120, 120), crs=None, transform=None)
    assert laid(plain, make_raster(120, 120))[0] == "laid over the map pixel by pixel"
    with pytest.raises(RasterError, match=r"120 x 120 px found, the map has 130 x 110 px, and .*"):
        laid(plain, make_raster(110, 130, "other.tif"))


def test_a_plan_in_a_tag_that_makes_no_sense_is_left_aside(tmp_path, make_raster):
    import rasterio

    target = make_raster(100, 100, "map.tif")
    with rasterio.open(target, "r+") as dst:
        dst.update_tags(TILEMAPPER_PLAN='{"source": {}, "overlap": 17, "tile": 256}')
    with open_rendered(str(target)) as rendered:
        assert rendered.plan is None
    assert laid(make_raster(100, 100), target)[0] == "on the map's own grid"
