"""Rasters across the date line, counted beyond it, around the world, and around a pole."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine

from tests.conftest import write_raster
from tests.serve.conftest import decoded

RED, GREEN = (255, 0, 0), (0, 255, 0)
HALVES = np.concatenate([np.full((300, 150, 3), RED), np.full((300, 150, 3), GREEN)], axis=1)
PIXELS = HALVES.transpose(2, 0, 1).astype(np.uint8)
ACROSS = {
    "counted on": ("EPSG:4326", Affine(1e-3, 0, 179.85, 0, -1e-3, 10)),
    "counted on from below": ("EPSG:4326", Affine(1e-3, 0, -180.15, 0, -1e-3, 10)),
    # 180 degrees are some 818 km east of the zone's middle there.
    "UTM": ("EPSG:32760", Affine(100, 0, 803_500, 0, -100, 8_100_000)),
}


def tile(client, scene, z, x, y):
    answer = client.get(f"/xyz/{scene.id}/source/{z}/{x}/{y}.png")
    assert answer.status_code == 200
    return decoded(answer.content)


@pytest.mark.parametrize("kind", ACROSS)
def test_a_raster_across_the_date_line_is_shown_on_both_sides(tmp_path, serve, kind):
    crs, transform = ACROSS[kind]
    source = write_raster(tmp_path / "a.tif", PIXELS, crs=crs, transform=transform)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        left, top, right, bottom = scene.frame.bounds
        assert 0.999 < left < 1 < right < 1.001  # one narrow box, and not all of the world
        z = 8
        y = int((top + bottom) / 2 * 2**z)
        west, east = tile(client, scene, z, 2**z - 1, y), tile(client, scene, z, 0, y)
        beside = tile(client, scene, z, 2**z // 2, y)
    assert west[..., 3].any() and east[..., 3].any() and not beside[..., 3].any()
    red, green = (west[west[..., 3] > 0] == [*RED, 255]), (east[east[..., 3] > 0] == [*GREEN, 255])
    assert red.all(axis=1).mean() > 0.9
    assert green.all(axis=1).mean() > 0.9
    # Both halves are as large, and nothing is torn off: they touch the line.
    assert abs(len(red) - len(green)) < 0.2 * len(red)
    assert west[:, -1, 3].any() and east[:, 0, 3].any()


def test_degrees_beyond_the_date_line_are_found(tmp_path, serve):
    place = {"crs": "EPSG:4326", "transform": Affine(1e-3, 0, 190, 0, -1e-3, 10)}
    source = write_raster(tmp_path / "a.tif", PIXELS, **place)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        left, top, right, bottom = scene.frame.bounds
        assert (left, right) == pytest.approx((10 / 360, 10.3 / 360))
        z = 9
        got = tile(client, scene, z, int((left + right) / 2 * 2**z), int((top + bottom) / 2 * 2**z))
    assert {RED, GREEN} <= {tuple(c) for c in got[got[..., 3] > 0][:, :3]}


@pytest.mark.parametrize("west", [-180, 0, -30])
def test_the_whole_world_is_whole_wherever_it_begins(tmp_path, serve, west):
    place = {"crs": "EPSG:4326", "transform": Affine(1.2, 0, west, 0, -0.5, 75)}
    source = write_raster(tmp_path / "a.tif", PIXELS, **place)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        assert scene.frame.bounds[::2] == pytest.approx((0, 1))
        for x in (0, 1):
            got = tile(client, scene, 1, x, 0)
            assert (got[128:, :, 3] == 255).all()
            shown = got[250, :, :3]
            degrees = (np.arange(256) + 0.5 + 256 * x) / 512 * 360 - 180
            green = (degrees - west) % 360 > 180
            clear = np.abs((degrees - west) % 180 - 90) < 87  # beside a border colours mix
            assert (shown[clear & green] == GREEN).all()
            assert (shown[clear & ~green] == RED).all()


def test_a_raster_around_a_pole_is_shown_on_its_own_pixels(tmp_path, serve):
    side = 16_000 * 150
    place = {"crs": "EPSG:3413", "transform": Affine(16_000, 0, -side, 0, -16_000, side)}
    source = write_raster(tmp_path / "a.tif", PIXELS, **place)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        assert scene.frame.scheme == "pixels"
        assert (tile(client, scene, 1, 0, 0)[..., 3] == 255).all()
