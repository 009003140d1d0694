from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.crs import CRS
from rasterio.warp import transform as warp
from rasterio.warp import transform_geom

from tests.raster.made import UTM, city, placed, write_raster
from tilemapper.errors import OptionError, RasterError
from tilemapper.raster import aoi, edges
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source

# A triangle with a hole, in metres of the raster that city() makes: 117 m wide, 81 m high.
TRIANGLE = {
    "type": "Polygon",
    "coordinates": [
        [[500_010, 4_499_990], [500_100, 4_499_985], [500_050, 4_499_925], [500_010, 4_499_990]],
        [[500_045, 4_499_980], [500_060, 4_499_980], [500_050, 4_499_960], [500_045, 4_499_980]],
    ],
}


def wanted(tmp_path: Path, content: object, **options):
    """Spec and wanted pixels of the whole grid for a GeoJSON content."""
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(content if isinstance(content, str) else json.dumps(content))
    raster = write_raster(tmp_path / "a.tif", city())
    spec = inspect_source(raster, SourceOptions(mask=str(aoi), **options), None)
    with SourceView(spec) as view:
        return spec, view.wanted(row=0, col=0, height=view.height, width=view.width)


def in_degrees(geometry):
    return transform_geom(UTM, "OGC:CRS84", geometry, precision=9)


def test_pixels_whose_centres_lie_in_the_polygon_are_wanted(tmp_path: Path):
    _, mask = wanted(tmp_path, in_degrees(TRIANGLE))
    rows, cols = np.mgrid[:90, :130] + 0.5
    x, y = 500_000 + 0.9 * cols, 4_500_000 - 0.9 * rows

    def inside(ring):
        odd = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in pairwise(ring):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return odd

    expected = inside(TRIANGLE["coordinates"][0]) & ~inside(TRIANGLE["coordinates"][1])
    # Corners are moved to fractions of a pixel, so a few centres on an edge may change sides.
    assert (mask != expected).mean() < 0.001 and mask.sum() > 2000


def test_all_ways_to_write_it_mean_the_same(tmp_path: Path):
    degrees = in_degrees(TRIANGLE)
    feature = {"type": "Feature", "properties": {}, "geometry": degrees}
    legacy = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}
    ways = [
        feature,
        {"type": "FeatureCollection", "features": [feature, feature | {"geometry": None}]},
        {"type": "MultiPolygon", "coordinates": [degrees["coordinates"]]},
        {"type": "GeometryCollection", "geometries": [degrees]},
        {"type": "Feature", "geometry": TRIANGLE, "crs": legacy},
    ]
    _, expected = wanted(tmp_path, degrees)
    for way in ways:
        assert (wanted(tmp_path, way)[1] != expected).sum() <= 2


@pytest.mark.parametrize("options", [{}, {"gsd": 0.7}, {"bounds": (5e5, 4499950, 5e5 + 70, 4.5e6)}])
def test_windows_agree(tmp_path: Path, options):
    spec, whole = wanted(tmp_path, in_degrees(TRIANGLE), **options)
    rng = np.random.default_rng(3)
    with SourceView(spec) as view:
        for _ in range(100):
            row, col = int(rng.integers(0, view.height)), int(rng.integers(0, view.width))
            height = int(rng.integers(1, view.height - row + 1))
            width = int(rng.integers(1, view.width - col + 1))
            part = view.wanted(row=row, col=col, height=height, width=width)
            assert_array_equal(part, whole[row : row + height, col : col + width])


def test_without_a_mask_all_pixels_are_wanted(tmp_path: Path):
    spec = inspect_source(write_raster(tmp_path / "a.tif", city()), SourceOptions(), None)
    with SourceView(spec) as view:
        assert view.wanted(row=0, col=0, height=5, width=5) is None


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[1, 2]",
        '{"type": "Polygon"}',
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "Polygon", "coordinates": [[["a", "b"]]]}',
        '{"type": "Polygon", "coordinates": [[[NaN, 1], [2, 3], [4, 5], [NaN, 1]]]}',
        '{"type": "Polygon", "coordinates": [[]]}',
        '{"type": "Polygon", "crs": {"properties": {"name": "x"}}, "coordinates": [[[1, 2]]]}',
    ],
)
def test_what_holds_no_polygon_is_refused_in_one_line(tmp_path: Path, content: str):
    with pytest.raises(OptionError) as caught:
        wanted(tmp_path, content)
    assert "\n" not in str(caught.value) and "--mask" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path):
    raster = write_raster(tmp_path / "a.tif", city())
    with pytest.raises(OptionError, match="cannot be read"):
        inspect_source(raster, SourceOptions(mask=str(tmp_path / "none.geojson")), None)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_that_lies_nowhere_takes_no_polygons_whether_it_names_a_crs_or_not(tmp_path: Path):
    """Of one with a CRS but no transform it said that it had no CRS."""
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(json.dumps(TRIANGLE))
    for name, crs in (("crs.tif", UTM), ("none.tif", None)):
        raster = write_raster(tmp_path / name, city(), crs=crs, transform=Affine.identity())
        with pytest.raises(RasterError, match=r"is rendered without CRS or transform, so --mask"):
            inspect_source(raster, SourceOptions(mask=str(aoi)), None)


def test_polygons_beside_the_raster_are_refused(tmp_path: Path):
    far = {"type": "Polygon", "coordinates": [[[10, 10], [11, 10], [11, 11], [10, 10]]]}
    with pytest.raises(RasterError, match="beside the raster"):
        wanted(tmp_path, far)


def degrees_of_centres(raster: str):
    """Longitude and latitude of the raster's pixel centres, (h, w) each."""
    with rasterio.open(raster) as src:
        rows, cols = np.mgrid[: src.height, : src.width] + 0.5
        a, b, c, d, e, f = tuple(src.transform)[:6]
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        lon, lat = warp(src.crs, "OGC:CRS84", x.ravel(), y.ravel())
        return np.reshape(lon, src.shape), np.reshape(lat, src.shape)


def holds(ring, lon, lat):
    """Whether a ring holds places, its edges being straight in longitude and latitude."""
    odd = np.zeros(lon.shape, bool)
    for (x0, y0), (x1, y1) in pairwise(ring):
        if y0 != y1:
            odd ^= ((y0 > lat) != (y1 > lat)) & (lon < (x1 - x0) * (lat - y0) / (y1 - y0) + x0)
    return odd


def expected_of(polygons, raster):
    """Pixels whose centres lie in polygons, however often around the world they are counted."""
    lon, lat = degrees_of_centres(raster)
    found = np.zeros(lon.shape, bool)
    for outer, *holes in polygons:
        for turn in (-360, 0, 360):
            here = holds(outer, lon + turn, lat)
            for hole in holes:
                here ^= holds(hole, lon + turn, lat)
            found |= here
    return found


def away_from_edges(mask):
    """Pixels all of whose neighbours agree with them."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1, mode="edge"), (3, 3))
    return around.all(axis=(2, 3)) | ~around.any(axis=(2, 3))


def laid(folder: Path, polygons, transform, crs, height=90, width=130, **profile):
    """Raster, spec and wanted pixels for polygons in longitude and latitude."""
    aoi = folder / "aoi.geojson"
    aoi.write_text(json.dumps({"type": "MultiPolygon", "coordinates": polygons}))
    raster = write_raster(
        folder / "a.tif", city(height, width), transform=transform, crs=crs, **profile
    )
    spec = inspect_source(raster, SourceOptions(mask=str(aoi), gsd="native"), None)
    with SourceView(spec) as view:
        return raster, spec, view.wanted(row=0, col=0, height=height, width=width)


def box(left, bottom, right, top):
    return [[[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]]


MERCATOR = 20_037_508.342789244  # of 180 degrees in EPSG:3857

# CRS, transform, and about where it lies: longitude, latitude and its size in degrees.
PLACES = {
    "UTM": (UTM, placed(), -75, 40.65, 0.001),
    "UTM, 100 km": (UTM, placed(900, 450_000), -75, 40.3, 1),
    "UTM, turned": (UTM, Affine(60, 80, 5e5, 80, -60, 4.5e6), -74.9, 40.65, 0.2),
    "UTM at 180 degrees": ("EPSG:32601", placed(500, 300_000, 6_660_000), 180, 59.9, 1),
    "degrees": ("EPSG:4326", Affine(1e-3, 0, 7, 0, -1e-3, 47), 7.06, 46.95, 0.1),
    "degrees beyond 180": ("EPSG:4326", Affine(1e-3, 0, 179.95, 0, -1e-3, 60), 180, 59.95, 0.1),
    "degrees below -180": ("EPSG:4326", Affine(1e-3, 0, -180.05, 0, -1e-3, 60), 180, 59.95, 0.1),
    "NAD83": ("EPSG:4269", Affine(1e-3, 0, -100, 0, -1e-3, 47), -99.94, 46.95, 0.1),
    "Lambert": ("EPSG:2154", placed(9000, 100_000, 7_100_000), 3, 47, 10),
    "web": ("EPSG:3857", placed(10_000, 1e6, 6e6), 14, 44, 10),
    "web world": ("EPSG:3857", placed(308_300, -MERCATOR, MERCATOR), 10, 10, 100),
    "web world from 0": ("EPSG:3857", placed(308_270, 0, MERCATOR), 170, 10, 100),
    "web at 180 degrees": ("EPSG:3857", placed(9000, MERCATOR - 600_000, 1e6), 180, 4, 10),
    "web beyond 180": ("EPSG:3857", placed(9000, MERCATOR + 1e6, 1e6), -165, 4, 10),
    "polar": ("EPSG:3413", placed(900, 5e5, 4.5e5), 55, 83, 5),
    "pole inside": ("EPSG:3413", placed(30_000, -2e6, 1.3e6), 0, 80, 60),
    "south pole": ("EPSG:3031", placed(30_000, -2e6, 1.3e6), 0, -80, 60),
    "world": ("EPSG:4326", Affine(360 / 130, 0, -180, 0, -2, 90), 10, 10, 100),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_edges_are_straight_in_longitude_and_latitude(tmp_path: Path, place: str, seed: int):
    crs, transform, lon, lat, size = PLACES[place]
    random = np.random.default_rng(seed)
    corners = random.integers(5, 12)
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    # Stars of all sizes, with edges that are long against the raster, and a hole in each.
    radius = random.uniform(0.2, 1, corners) * size * [0.6, 2, 6, 0.3][seed]
    middle = np.array([lon, lat]) + random.uniform(-0.2, 0.2, 2) * size
    star = middle + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    hole = middle + 0.3 * (star - middle)
    rings = []
    for ring in (star, hole):
        ring[:, 1] = ring[:, 1].clip(-90, 90)
        if size >= 60:  # no ring goes around the world twice
            ring[:, 0] = ring[:, 0].clip(-180, 180)
        rings.append([*ring.tolist(), ring[0].tolist()])
    try:
        raster, _, mask = laid(tmp_path, [rings], transform, crs)
    except RasterError as error:
        assert "beside the raster" in str(error)
        raster = str(tmp_path / "a.tif")
        mask = np.zeros((90, 130), bool)
    expected = expected_of([rings], raster)
    wrong = (mask != expected) & away_from_edges(expected)
    assert not wrong.any()


WORLD = box(-180, -90, 180, 90)


@pytest.mark.parametrize("place", PLACES)
def test_what_holds_the_raster_leaves_all_of_it(tmp_path: Path, place: str):
    crs, transform, *_ = PLACES[place]
    for polygons in ([WORLD], [box(-180, -90, 0, 90), box(0, -90, 180, 90)]):
        _, spec, mask = laid(tmp_path, polygons, transform, crs)
        assert (~mask).sum() <= 2  # the pole itself may lie between two edges
        assert len(json.dumps(spec.aoi)) < 20_000


def test_a_parallel_keeps_its_latitude_across_the_central_meridian(tmp_path: Path):
    raster, _, mask = laid(
        tmp_path, [box(-80, 40.02, -70, 45)], placed(100, 496_000, 4_436_000), UTM
    )
    _, lat = degrees_of_centres(raster)
    assert ((lat > 40.02) != mask).mean() < 0.001 and 0.1 < mask.mean() < 0.9


def test_polygons_on_either_side_of_180_degrees_both_count(tmp_path: Path):
    sides = [box(179, 59, 180, 61), box(-180, 59, -179, 61)]
    crs, transform, *_ = PLACES["UTM at 180 degrees"]
    raster, _, mask = laid(tmp_path, sides, transform, crs)
    expected = expected_of(sides, raster)
    assert expected.any() and (mask != expected).mean() < 0.001
    for across in (box(179, 59, 181, 61), box(-181, 59, -179, 61)):
        assert (laid(tmp_path, [across], transform, crs)[2] != mask).sum() <= 2


@pytest.mark.parametrize("place", ["world", "web world", "web world from 0"])
@pytest.mark.parametrize("area", [(170, -30, 190, 60), (-20, -85, 340, 85), (-200, -90, -170, 90)])
def test_areas_beyond_180_degrees_count_on_a_map_of_the_world(tmp_path: Path, place: str, area):
    crs, transform, *_ = PLACES[place]
    raster, _, mask = laid(tmp_path, [box(*area)], transform, crs)
    expected = expected_of([box(*area)], raster)
    assert expected.any() and not ((mask != expected) & away_from_edges(expected)).any()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(400 / 130, 0, -200, 0, -2, 90)),
        ("EPSG:4326", Affine(400 / 130, 0, 0, 0, -2, 90)),
        ("EPSG:4326", Affine(-700 / 130, 0, 350, 0, 2, -90)),
        ("EPSG:3857", placed(2.4 * MERCATOR / 130, -1.2 * MERCATOR, MERCATOR)),
    ],
)
@pytest.mark.parametrize("area", [(170, -30, 190, 60), (10, 0, 30, 30), (-180, -60, 180, 60)])
def test_ground_that_lies_twice_on_a_grid_is_wanted_twice(tmp_path: Path, crs, transform, area):
    raster, _, mask = laid(tmp_path, [box(*area)], transform, crs)
    expected = expected_of([box(*area)], raster)
    assert expected.any() and not ((mask != expected) & away_from_edges(expected)).any()


def circle(count, lon=-74.9994, lat=40.6505, radius=0.0003):
    angles = np.linspace(0, 2 * np.pi, count)
    ring = np.stack([lon + radius * np.cos(angles), lat + radius * np.sin(angles)], 1)
    ring[-1] = ring[0]
    return [ring.tolist()]


@pytest.mark.parametrize("most_points", [2**20, 50_000])
def test_polygons_too_detailed_to_be_kept_are_refused_with_what_thins_them(
    tmp_path: Path, most_points: int, monkeypatch
):
    monkeypatch.setattr(edges, "MOST_POINTS", most_points)
    monkeypatch.setattr(aoi, "_MAX_STORED_BYTES", 2**20)
    with pytest.raises(OptionError, match="ogr2ogr -simplify") as caught:
        laid(tmp_path, [circle(60_000)], placed(), UTM)
    assert "\n" not in str(caught.value)
    _, spec, _ = laid(tmp_path, [circle(20_000)], placed(), UTM)
    assert len(json.dumps(spec.aoi)) < 2**20


def test_detail_far_from_the_raster_is_not_kept(tmp_path: Path):
    many = [circle(60_000, lat=41), circle(100), circle(60_000, lon=-60, radius=20)]
    _, spec, mask = laid(tmp_path, many, placed(), UTM)
    assert mask.all() and len(json.dumps(spec.aoi)) < 20_000


def test_what_the_rasters_crs_tears_apart_is_refused_in_one_line(tmp_path: Path):
    disk = CRS.from_string("+proj=ortho +lat_0=40 +lon_0=-75")
    whole = placed(140_000, -9_000_000, 6_300_000)  # its corners lie off the globe
    with pytest.raises(OptionError, match="ogr2ogr -clipsrc") as caught:
        laid(tmp_path, [WORLD], whole, disk)
    assert "\n" not in str(caught.value)
    assert laid(tmp_path, [box(-80, 30, -60, 50)], whole, disk)[2].any()
