from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from rasterio.warp import transform_geom

from tests.raster.made import UTM, city, write_raster
from tilemapper.errors import OptionError, RasterError
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


def test_polygons_beside_the_raster_are_refused(tmp_path: Path):
    far = {"type": "Polygon", "coordinates": [[[10, 10], [11, 10], [11, 11], [10, 10]]]}
    with pytest.raises(RasterError, match="beside the raster"):
        wanted(tmp_path, far)
