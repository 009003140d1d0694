from __future__ import annotations

import itertools

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from tilemapper.archive.place import placed
from tilemapper.raster.dateline import box_of, enclosing, geometry, on_the_ground, touches


def square(west, south, east, north):
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def area(ring):
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring)) / 2


def rings_of(shape):
    if shape["type"] == "Polygon":
        return shape["coordinates"]
    return [ring for polygon in shape["coordinates"] for ring in polygon]


@given(
    west=st.integers(-540, 540),
    width=st.integers(1, 300),
    counted=st.lists(st.sampled_from([-360, 0, 360]), min_size=4, max_size=4),
    clockwise=st.booleans(),
)
def test_a_ring_is_written_within_the_degrees_that_there_are(west, width, counted, clockwise):
    """However its longitudes are counted it covers the same ground, once."""
    corners = square(west, 10, west + width, 20)[:4]
    if width < 180:
        corners = [(lon + t, lat) for (lon, lat), t in zip(corners, counted, strict=True)]
    ring = corners
    ring = [*ring, ring[0]]
    if width >= 180:  # such a side needs places between, as rasters' rings have
        middle = west + width / 2
        ring = [ring[0], (middle, 10), *ring[1:3], (middle, 20), *ring[3:]]
    rings = rings_of(geometry(ring[::-1] if clockwise else ring))
    assert all(-180 <= lon <= 180 for one in rings for lon, _ in one)
    assert all(one[0] == one[-1] and area(one) > 0 for one in rings)
    assert sum(map(area, rings)) == pytest.approx(10 * width)
    left, south, right, north = box_of(ring)
    assert (south, north) == (10, 20)
    assert (right - left) % 360 == pytest.approx(width)
    assert len(rings) == 1 + (left > right)


@pytest.mark.parametrize(("west", "width"), [(-200, 400), (0, 400), (-180, 720), (-180, 360)])
def test_a_grid_wider_than_the_world_lies_all_around_it_once(west, width):
    grid = Affine(width / 80, 0, west, 0, -1, 40)
    place = placed(60, 80, grid, CRS.from_epsg(4326))
    assert place.bbox == (-180, -20, 180, 40)
    (ring,) = rings_of(geometry(place.ring))
    assert area(ring) == pytest.approx(360 * 60)
    assert all(-180 <= lon <= 180 for lon, _ in ring)


def test_boxes_share_ground_across_the_date_line():
    fiji = (177.0, -20.0, -178.0, -15.0)
    assert touches(fiji, (178, -18, 179, -16)) and touches((178, -18, 179, -16), fiji)
    assert touches(fiji, (-180, -18, -179, -16)) and touches((-180, -18, -179, -16), fiji)
    assert touches(fiji, (181, -18, 182, -16)) and touches(fiji, fiji)
    assert not touches(fiji, (-178, -18, 177, -16))
    assert not touches(fiji, (178, 15, 179, 20))
    assert not touches((0, 0, 1, 1), (1, 0, 2, 1))


def test_a_box_around_all_goes_the_short_way():
    assert enclosing([(10, 0, 20, 5), (-30, 1, -20, 9)]) == (-30, 0, 20, 9)
    assert enclosing([(177, 0, -178, 5), (170, 1, 171, 9)]) == (170, 0, -178, 9)
    assert enclosing([(177, 0, -178, 5), (-178, 1, -171, 9)]) == (177, 0, -171, 9)
    assert enclosing([(178, 0, 179, 5), (-179, 1, -178, 9)]) == (178, 0, -178, 9)
    assert enclosing([(-172, 0, 0, 5), (0, 1, 180, 9), (175, 1, -171, 9)])[0::2] == (-180, 180)
    assert enclosing([]) == (-180, -90, 180, 90)


@pytest.mark.parametrize("epsg", [32760, 3832])
def test_a_raster_across_the_date_line_lies_on_both_sides_of_it(epsg):
    """UTM 60 south beyond its zone, and a Mercator grid whose middle is the Pacific's."""
    corner = {32760: (780_000, 8_100_000), 3832: (3_320_000, -1_900_000)}[epsg]
    place = placed(500, 800, Affine(100, 0, corner[0], 0, -100, corner[1]), CRS.from_epsg(epsg))
    west, south, east, north = place.bbox
    assert 177 < west < 180
    assert -180 < east < -178
    assert -20 < south < north < -10
    halves = rings_of(geometry(place.ring))
    assert [min(lon for lon, _ in half) > 0 for half in halves] == [True, False]
    assert max(lon for lon, _ in halves[0]) == 180
    assert min(lon for lon, _ in halves[1]) == -180
    assert not touches(place.bbox, (-100, -30, 100, 0))


def test_a_raster_around_a_pole_has_a_ring_that_holds_it():
    grid = Affine(1000, 0, -400_000, 0, -1000, 400_000)
    place = placed(800, 800, grid, CRS.from_epsg(3995))
    assert place.bbox[0::2] == (-180, 180)
    assert place.bbox[3] == 90
    assert 84 < place.bbox[1] < 86  # at the corners, 566 km from the pole
    (ring,) = rings_of(geometry(place.ring))
    assert area(ring) == pytest.approx(360 * (90 - place.bbox[1]))
    south = placed(800, 800, grid, CRS.from_epsg(3031))
    assert (south.bbox[1], -86 < south.bbox[3] < -84) == (-90, True)


def test_degrees_from_0_to_360_are_those_that_others_use():
    place = placed(10, 20, Affine(0.1, 0, 190, 0, -0.1, 50), CRS.from_epsg(4326))
    assert place.bbox == pytest.approx((-170, 49, -168, 50))
    whole = placed(180, 360, Affine(1, 0, 0, 0, -1, 90), CRS.from_epsg(4326))
    assert whole.bbox == (-180, -90, 180, 90)
    assert sum(map(area, rings_of(geometry(whole.ring)))) == pytest.approx(360 * 180)


def test_a_ring_that_crosses_nothing_is_as_it_was():
    ring = square(-75.1, 40, -75, 40.1)
    assert on_the_ground(ring) == ring == on_the_ground(ring[::-1])
    assert geometry(ring) == {"type": "Polygon", "coordinates": [ring]}
