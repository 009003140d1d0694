"""Windows in which a map is measured against a true one: from all of it, and where the truth is."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.warp import transform_bounds

from tests.conftest import ORIGIN, noise, write_raster
from tilemapper.api import truth as truths
from tilemapper.report.alignment import lay, open_rendered


class Looked:
    """A view whose pixels say where they lie in windows of 256 px, valid everywhere."""

    def read(self, *, row, col, height, width):
        place = np.array([row // 256, col // 256, 0], np.uint8)
        return np.tile(place, (height, width, 1)), np.ones((height, width), bool)


def test_windows_come_from_all_of_a_large_map_and_from_the_seed(tmp_path, monkeypatch):
    small = write_raster(tmp_path / "map.tif", noise(40, 40))
    seen = []
    with open_rendered(str(small)) as rendered, lay(str(small), rendered, crisp=True) as true:
        monkeypatch.setattr(truths, "_footprint", lambda *_: (0, 0, 16384, 16384))
        for seed in (0, 0, 1):
            rendered.view = true.view = Looked()
            pairs = truths._windows(rendered, true, 256, seed)
            seen.append([tuple(painted[0, 0, :2].tolist()) for painted, _ in pairs])
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == truths.MOST_WINDOWS
    rows = np.array(seen[0])[:, 0]
    assert rows.max() > 58
    assert 27 < rows.mean() < 37


def test_of_more_valid_windows_than_are_wanted_none_is_preferred(tmp_path, monkeypatch):
    monkeypatch.setattr(truths, "MOST_WINDOWS", 10)
    mask = np.zeros((640, 640), bool)
    mask[:, 320:] = True
    small = write_raster(tmp_path / "map.tif", noise(640, 640))
    true = write_raster(tmp_path / "true.tif", noise(640, 640), mask=mask)
    with open_rendered(str(small)) as rendered, lay(str(true), rendered, crisp=True) as laid:
        pairs = list(truths._windows(rendered, laid, 32, 0))
        north = sum(
            any(np.array_equal(pair[0], rendered.view.read(row=r, col=c, height=32, width=32)[0])
                for r in range(0, 320, 32) for c in range(320, 640, 32))
            for pair in pairs
        )  # fmt: skip
    assert len(pairs) == 10
    assert 1 <= north <= 9


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:4326"])
def test_a_small_truth_on_a_large_map_is_found(tmp_path, crs):
    target = write_raster(tmp_path / "map.tif", np.full((3, 9000, 9000), 200, np.uint8))
    grid = ORIGIN @ Affine.translation(7001, 5003)
    if crs != "EPSG:32618":
        corners = (grid.c, grid.f - 0.9 * 300, grid.c + 0.9 * 300, grid.f)
        west, south, east, north = transform_bounds("EPSG:32618", crs, *corners)
        grid = Affine((east - west) / 300, 0, west, 0, (south - north) / 300, north)
    pixels = np.full((3, 300, 300), 200, np.uint8)
    small = write_raster(tmp_path / "truth.tif", pixels, crs=crs, transform=grid)
    with open_rendered(str(target)) as rendered, lay(str(small), rendered, crisp=True) as laid:
        found = truths.truth_figures(rendered, laid)
    assert found.windows >= 1
    assert found.values["acc5"] == 1
    if crs == "EPSG:32618":
        assert (found.windows, found.side) == (1, 256)
