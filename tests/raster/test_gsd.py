from __future__ import annotations

import math

import pytest
from affine import Affine
from rasterio.crs import CRS

from tests.raster.made import placed
from tilemapper.errors import OptionError, RasterError
from tilemapper.raster.gsd import output_size, pixel_size_m, wanted_steps


def size(transform: Affine, crs: str, height: int = 1000, width: int = 1000):
    return pixel_size_m(transform, CRS.from_user_input(crs), height, width)


def test_utm_metres_are_metres_but_for_the_scale_factor():
    rows_m, cols_m = size(placed(0.9), "EPSG:32618")
    assert rows_m == pytest.approx(0.9 / 0.9996, rel=1e-4)
    assert cols_m == pytest.approx(0.9 / 0.9996, rel=1e-4)


@pytest.mark.parametrize("latitude", [0.0, 27.6, -45.0, 70.0])
def test_degrees_shrink_towards_the_poles_along_columns_only(latitude: float):
    degrees = 1e-5
    transform = Affine(degrees, 0, 10 - 500 * degrees, 0, -degrees, latitude + 500 * degrees)
    rows_m, cols_m = size(transform, "EPSG:4326")
    # Length of a degree by the usual series, as the National Geospatial-Intelligence Agency has it.
    phi = math.radians(latitude)
    north = 111132.954 - 559.822 * math.cos(2 * phi) + 1.175 * math.cos(4 * phi)
    east = 111412.84 * math.cos(phi) - 93.5 * math.cos(3 * phi) + 0.118 * math.cos(5 * phi)
    assert rows_m == pytest.approx(degrees * north, rel=1e-4)
    assert cols_m == pytest.approx(degrees * east, rel=1e-4)


def test_web_mercator_stretches_by_the_cosine_of_latitude():
    y = 3_202_940.0  # Banepa, 27.63 degrees north
    rows_m, cols_m = size(placed(0.149291, 9_519_926, y), "EPSG:3857")
    assert cols_m == pytest.approx(0.149291 * math.cos(math.radians(27.63)), rel=0.004)
    assert rows_m == pytest.approx(cols_m, rel=0.01)


def test_feet_are_no_metres():
    transform = placed(3.0, 1_000_000, 200_000)  # New York, US survey feet
    assert size(transform, "EPSG:2263") == pytest.approx((0.9144, 0.9144), rel=1e-3)


def test_turning_a_raster_leaves_its_pixels_as_large():
    turned = Affine(0.6, 0.6, 5e5, 0.6, -0.6, 45e5)
    expected = 0.6 * 2**0.5 / 0.9996
    assert size(turned, "EPSG:32618") == pytest.approx((expected, expected), rel=1e-4)


def test_there_is_no_size_without_a_crs_or_a_transform():
    assert pixel_size_m(placed(), None, 10, 10) is None
    assert size(Affine.identity(), "EPSG:4326") is None


def test_across_the_date_line_and_off_the_projection_there_is_still_a_size():
    near_180 = Affine(0.5, 0, -20.0, 0, -0.5, 0.0)
    assert size(near_180, "EPSG:32660") is not None
    off_the_disc = Affine(1e4, 0, 9e6, 0, -1e4, 9e6)
    geostationary = "+proj=geos +h=35785831 +lon_0=-75 +ellps=WGS84 +units=m"
    assert size(off_the_disc, geostationary, 2, 2) == (1e4, 1e4)


@pytest.mark.parametrize(
    ("gsd", "model", "expected"),
    [
        ("auto", None, None),
        ("native", 0.9, None),
        ("auto", 0.9, None),
        ("auto", 2.0, (2.0, 2.0)),
        (1.05, 0.9, (1.05, 1.05)),
    ],
)
def test_steps_follow_the_option(gsd, model, expected):
    assert wanted_steps("a", (1.0, 1.0), gsd, model) == expected


def test_oblong_pixels_become_square_and_almost_square_ones_keep_their_shape():
    assert wanted_steps("a", (0.5, 1.0), "auto", 1.0) == (2.0, 1.0)
    rows, cols = wanted_steps("a", (0.500, 0.503), "auto", 1.0)
    assert rows == cols


def test_metres_for_a_raster_without_any_are_refused():
    with pytest.raises(OptionError, match="--gsd native"):
        wanted_steps("a.tif", None, 0.9, 0.9)
    assert wanted_steps("a.tif", None, "auto", 0.9) is None


def test_what_is_far_too_coarse_is_refused():
    with pytest.raises(RasterError, match="invents the ground"):
        wanted_steps("a.tif", (10.0, 10.0), "auto", 0.9)
    assert wanted_steps("a.tif", (10.0, 10.0), 0.9, None) is not None
    with pytest.raises(RasterError, match="invents the ground"):
        wanted_steps("a.tif", (100.0, 100.0), 0.9, None)
    with pytest.raises(RasterError, match="would come out"):
        output_size("a.tif", 100_000, 100_000, (1 / 64, 1 / 64))


def test_an_output_has_at_least_one_pixel():
    assert output_size("a.tif", 3, 100, (10.0, 10.0)) == (1, 10)


def test_a_pixel_that_was_not_meant_in_metres_is_refused():
    """Degrees under a CRS of metres: one pixel of the map would be mixed of billions."""
    with pytest.raises(RasterError, match=r"pixels span 1e-06 m, 0.9 m are wanted, more than"):
        wanted_steps("city.tif", (1e-6, 1e-6), "auto", 0.9)
    assert wanted_steps("city.tif", (0.9, 0.9), 9000.0, None) == (10000.0, 10000.0)
