"""An area of interest gives the same pixels in any window, at the cost of what lies there."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.features import geometry_mask

from tilemapper.raster import area
from tilemapper.raster.area import Area

SIDE = 100


def polygons(*rings):
    """A MultiPolygon of one ring each, (n, 2), closed here."""
    closed = [np.concatenate([ring, ring[:1]]).tolist() for ring in rings]
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in closed]}


def walk(rng, corners, fractions):
    """A ring that crosses itself and the grid's border, on fractions of a pixel."""
    steps = rng.normal(0, 15, (corners, 2))
    return np.round((np.cumsum(steps, axis=0) + SIDE / 2) * fractions) / fractions


def star(rng, corners):
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(5, 80, (corners, 1))
    return SIDE / 2 + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("seed", range(12))
def test_a_window_has_the_pixels_that_the_whole_grid_has(seed):
    """Level edges through pixel centres too, whose pixels hang on which way round a ring is."""
    rng = np.random.default_rng(seed)
    rings = [walk(rng, 40, fractions) for fractions in (1, 2, 2, 256)]
    geometry = polygons(*rings, star(rng, 60), rings[1] + 0.5)
    laid = Area(geometry)
    whole = geometry_mask(
        [geometry], out_shape=(SIDE, SIDE), transform=Affine.identity(), invert=True
    )
    for _ in range(40):
        (row, end), (col, stop) = (np.sort(rng.choice(SIDE + 1, 2, False)) for _ in range(2))
        found = laid.inside(row=row, col=col, height=end - row, width=stop - col)
        assert_array_equal(found, whole[row:end, col:stop])


def test_only_what_lies_at_a_window_costs_anything_there(monkeypatch):
    """Laid on every window in full, the houses of a town took longer than their rendering."""
    corners = []
    real = area.geometry_mask

    def counted(shapes, **options):
        corners.extend(len(ring) for part in shapes[0]["coordinates"] for ring in part)
        return real(shapes, **options)

    monkeypatch.setattr(area, "geometry_mask", counted)
    square = np.array([(0, 0), (3, 0), (3, 3), (0, 3)])
    corner_of = 10 * np.mgrid[:50, :50].reshape(2, -1).T
    houses = [square + corner for corner in corner_of]
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    coast = 250 + 240 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inside = Area(polygons(*houses, coast)).inside(row=240, col=100, height=20, width=20)
    assert inside.all()
    assert len(corners) == 5
    assert max(corners) < 10
    corners.clear()
    assert not Area(polygons(*houses)).inside(row=4, col=4, height=5, width=300).any()
    assert not corners
