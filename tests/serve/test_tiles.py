"""What is served is what `render` writes, whatever is looked at first."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from PIL import Image
from rasterio.enums import Resampling

import tilemapper
from tests.conftest import noise, read_raster, write_raster
from tests.serve.conftest import FIRST, ZOOM, aligned, decoded, mercator_transform, mosaic, serving
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, open_model, save_model
from tilemapper.raster.source import SourceOptions, inspect_source
from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.generator import Generator
from tilemapper.serve.livemap import LiveMap

HEIGHT, WIDTH = 530, 700


def rendered(source, tmp_path, model, **options):
    target = tmp_path / f"{model.name}_rendered.tif"
    tilemapper.render(
        source, target, model, device="cpu", precision="fp32", batch_size=1, **options
    )
    return read_raster(target).transpose(1, 2, 0)


def test_identity_gives_the_source_and_the_source_layer_too(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", HEIGHT, WIDTH)
    pixels = read_raster(source).transpose(1, 2, 0)
    with serve(source) as (_, client):
        for layer in ("source", "identity"):
            whole = mosaic(client, layer, HEIGHT, WIDTH)
            assert_array_equal(whole[..., :3], pixels)
            assert (whole[..., 3] == 255).all()


@pytest.mark.parametrize("name", ["unet", "classes"])
def test_tiles_where_the_grids_coincide_are_renders_pixels(tmp_path, serve, models, name):
    source = aligned(tmp_path / "city.tif", HEIGHT, WIDTH)
    with serve(source) as (_, client):
        whole = mosaic(client, name, HEIGHT, WIDTH)
    assert_array_equal(whole[..., :3], rendered(source, tmp_path, models / name))


def test_farther_out_tiles_are_the_mean_of_renders_pixels(tmp_path, serve, models):
    source = aligned(tmp_path / "city.tif", 512, 1024)
    with serve(source) as (_, client):
        half = (FIRST[0] // 2, FIRST[1] // 2)
        whole = mosaic(client, "unet", 256, 512, zoom=ZOOM - 1, first=half)
    pixels = rendered(source, tmp_path, models / "unet").astype(int)
    mean = (pixels.reshape(256, 2, 512, 2, 3).sum(axis=(1, 3)) + 2) >> 2
    # Tiles show places between the averages where these do not lie on their pixels' centres.
    assert_array_equal(whole[..., :3], mean)


def test_masked_pixels_are_transparent_and_leak_nowhere(tmp_path, serve, models):
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[100:300, 150:420] = False
    source = aligned(tmp_path / "city.tif", HEIGHT, WIDTH, mask=mask)
    with serve(source) as (_, client):
        whole = mosaic(client, "unet", HEIGHT, WIDTH)
    assert_array_equal(whole[..., 3] == 255, mask)
    assert_array_equal(whole[..., :3][mask], rendered(source, tmp_path, models / "unet")[mask])


def test_a_picture_without_a_place_has_its_own_pyramid(tmp_path, serve):
    pixels = noise(300, 520, seed=5)
    source = tmp_path / "picture.png"
    Image.fromarray(pixels.transpose(1, 2, 0)).save(source)
    with serve(source) as (_, client):
        scene = client.get("/api/config").json()["scenes"][0]
        assert (scene["scheme"], scene["native_zoom"]) == ("pixels", 2)
        for layer in ("source", "identity"):
            whole = mosaic(client, layer, 300, 520, zoom=2, first=(0, 0))
            assert_array_equal(whole[..., :3], pixels.transpose(1, 2, 0))


@pytest.mark.parametrize("size", [(1, 1), (100, 300), (193, 257), (450, 600)])
@pytest.mark.parametrize("overlap", [0, 64, 128])
def test_windows_in_any_order_are_renders_pixels(tmp_path, models, size, overlap):
    source = write_raster(tmp_path / "city.tif", noise(*size))
    model = open_model(models / "unet")
    whole = rendered(source, tmp_path, models / "unet", overlap=overlap)
    generator = Generator(device="cpu", precision="fp32", cache_bytes=2**20)  # holds two tiles
    cells = BoundedCache(2**18, lambda cell: cell.nbytes)  # and a cell or two
    spec = inspect_source(str(source), SourceOptions(), None)
    live = LiveMap("city", spec, model, generator, cells, overlap=overlap)
    random = np.random.default_rng(0)
    try:
        for _ in range(6):
            row, col = (int(random.integers(0, side)) for side in size)
            height = int(random.integers(1, size[0] - row + 1))
            width = int(random.integers(1, size[1] - col + 1))
            rgb, keep = live.window(row, col, height, width, threading.Event())
            assert keep.all()
            assert_array_equal(rgb, whole[row : row + height, col : col + width])
    finally:
        live.close()
        generator.close()
    assert cells.held_bytes <= 2**18
    assert generator.held_bytes <= 2**20


def test_a_model_of_small_tiles_is_served_with_the_overlap_that_they_allow(tmp_path, monkeypatch):
    monkeypatch.setattr("tilemapper.serve.service.list_models", lambda: [])
    card = ModelCard(name="small", architecture="identity", tile=64)
    generator = build_generator("identity", {}, card.channels, card.head)
    save_model(tmp_path / "small", card, generator, "# small")
    source = aligned(tmp_path / "city.tif", 100, 150)
    with serving(source, models=tmp_path, names=("small",)) as (_, client):
        shown = mosaic(client, "small", 100, 150)
        assert_array_equal(shown, mosaic(client, "source", 100, 150))


def test_each_lattice_tile_is_run_once_while_it_is_kept(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", HEIGHT, WIDTH)
    with serve(source) as (service, client):
        mosaic(client, "unet", HEIGHT, WIDTH)
        lattice = next(iter(service.scenes.all()[0].maps.values())).lattice
        assert service.generator.tiles_run == lattice.tile_count
        mosaic(client, "unet", HEIGHT, WIDTH)
        assert service.generator.tiles_run == lattice.tile_count


def test_too_far_out_nothing_is_rendered_and_no_wrong_picture_given(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", HEIGHT, WIDTH)
    with serve(source, live_tiles=9) as (service, client):
        scene = service.scenes.all()[0].id
        shown = client.get(f"/xyz/{scene}/unet/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
        assert shown.status_code == 200  # the native zoom always is
        path = f"/xyz/{scene}/unet/{ZOOM - 3}/{FIRST[0] >> 3}/{FIRST[1] >> 3}.png"
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["X-Tilemapper-Note"] == "zoom-in"
        said = client.get(f"/api/scenes/{scene}/maps/unet").json()
        assert (said["native_zoom"], said["live_zoom"]) == (ZOOM, ZOOM)


def test_beside_the_raster_tiles_are_empty_and_beyond_the_world_there_are_none(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", 100, 100)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0].id
        beside = client.get(f"/xyz/{scene}/unet/{ZOOM}/{FIRST[0] + 9}/{FIRST[1]}.png")
        assert beside.status_code == 200
        assert service.generator.tiles_run == 0
        for place in ("3/8/0", "3/0/-1", "99/0/0"):
            assert client.get(f"/xyz/{scene}/unet/{place}.png").status_code == 404
        assert client.get(f"/xyz/{scene}/nosuch/3/0/0.png").status_code == 404
        assert client.get("/xyz/nosuch/unet/3/0/0.png").status_code == 404


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3413", "EPSG:2154", "EPSG:4326"])
def test_maps_of_the_whole_world_ask_for_tiles_beyond_a_projection(tmp_path, serve, crs):
    """As QGIS does when a layer is added: half of the world is no place in UTM."""
    place = Affine(0.01, 0, 15, 0, -0.01, 50) if crs == "EPSG:4326" else None
    source = write_raster(
        tmp_path / "a.tif", noise(300, 300), crs=crs,
        transform=place or Affine(10, 0, 600_000, 0, -10, 5_400_000),
    )  # fmt: skip
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        left, top, right, bottom = scene.frame.bounds
        for z in range(scene.frame.native_zoom(scene.spec) + 1):
            x, y = int((left + right) / 2 * 2**z), int((top + bottom) / 2 * 2**z)
            answer = client.get(f"/xyz/{scene.id}/source/{z}/{x}/{y}.png")
            assert answer.status_code == 200, (z, answer.text)
        assert decoded(answer.content)[..., 3].any()


def test_places_that_a_projection_does_not_know_are_not_a_number(tmp_path, serve):
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 600_000, 0, -10, 5_400_000)}
    source = write_raster(tmp_path / "a.tif", noise(300, 300), **place)
    with serve(source) as (service, _):
        scene = service.scenes.all()[0]
        rows, cols = scene.frame.places(scene.spec, 0, 0, 0)
    assert (np.isnan(rows) == np.isnan(cols)).all()
    assert 0 < np.isnan(rows).mean() < 0.1
    assert np.isfinite(rows[128, 120:150]).all()  # near its zone


def test_the_first_raster_stays_the_first_whatever_is_looked_at(tmp_path, serve):
    sources = [aligned(tmp_path / f"{name}.tif", 256, 256) for name in "bac"]
    for index, source in enumerate(sources):  # each of one grey of its own
        with rasterio.open(source, "r+") as dst:
            dst.write(np.full((3, 256, 256), 50 * (index + 1), np.uint8))
    address = f"/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png"
    with serve(*sources) as (service, client):
        opened = [scene.name for scene in service.scenes.all()]
        assert opened == ["b.tif", "a.tif", "c.tif"]
        for scene in service.scenes.all()[::-1]:
            client.get(f"/xyz/{scene.id}/source/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
            greys = [decoded(client.get(address).content)[0, 0, 0] for _ in range(2)]
            assert greys == [50, 50]
        assert [scene.name for scene in service.scenes.all()] == opened
        assert [scene["name"] for scene in client.get("/api/config").json()["scenes"]] == opened


def test_the_first_raster_and_model_have_the_shortest_address(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", 256, 256)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0].id
        short = client.get(f"/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
        long = client.get(f"/xyz/{scene}/identity/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
        assert short.content == long.content


def test_rasters_of_other_grids_are_resampled_to_the_models_and_then_warped(tmp_path, serve):
    source = write_raster(tmp_path / "utm.tif", noise(400, 500))
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        left, top, _, _ = scene.frame.bounds
        z = scene.frame.native_zoom(scene.spec)
        x, y = int(left * 2**z), int(top * 2**z)
        answer = client.get(f"/xyz/{scene.id}/unet/{z}/{x}/{y}.png")
        assert answer.status_code == 200
        assert service.generator.tiles_run > 0


def test_half_a_preview_does_not_pass_for_the_whole(tmp_path, serve, monkeypatch):
    source = write_raster(
        tmp_path / "a.tif", noise(600, 640), crs="EPSG:3857", transform=mercator_transform()
    )

    def no_room(*args):
        raise MemoryError

    monkeypatch.setattr("tilemapper.serve.picture.MOST_AVERAGED", 2)
    monkeypatch.setattr("tilemapper.serve.previews.averaged", no_room)
    with serve(source) as (_, client):
        (scene,) = client.get("/api/config").json()["scenes"]
        z, x, y = ZOOM - 4, FIRST[0] >> 4, FIRST[1] >> 4
        answer = client.get(f"/xyz/{scene['id']}/source/{z}/{x}/{y}.png")
        assert answer.status_code >= 400
        assert "no preview" in answer.text
        monkeypatch.undo()
        monkeypatch.setattr("tilemapper.serve.picture.MOST_AVERAGED", 2)
        answer = client.get(f"/xyz/{scene['id']}/source/{z}/{x}/{y}.png")
        assert answer.status_code == 200


def test_overviews_and_previews_show_what_the_pixels_show(tmp_path, serve, monkeypatch):
    smooth = np.repeat(np.repeat(noise(32, 40, seed=2), 32, axis=1), 32, axis=2)
    place = {"crs": "EPSG:3857", "transform": mercator_transform()}
    plain = write_raster(tmp_path / "plain.tif", smooth, **place)
    carrying = write_raster(tmp_path / "carrying.tif", smooth, **place)
    with rasterio.open(carrying, "r+") as dst:
        dst.build_overviews([2, 4, 8], Resampling.average)
    monkeypatch.setattr("tilemapper.serve.picture.MOST_AVERAGED", 2)
    with serve(plain, carrying) as (_, client):
        far = {"zoom": ZOOM - 4, "first": (FIRST[0] >> 4, FIRST[1] >> 4)}
        scenes = [scene["id"] for scene in client.get("/api/config").json()["scenes"]]
        url = "/xyz/{}/source/{zoom}/{first[0]}/{first[1]}.png"
        tiles = [client.get(url.format(scene, **far)) for scene in scenes]
        assert [tile.status_code for tile in tiles] == [200, 200]
        whole = [decoded(tile.content) for tile in tiles]
        assert (whole[0][..., 3] == whole[1][..., 3]).all()
        apart = np.abs(whole[0][..., :3].astype(int) - whole[1][..., :3])
        assert apart.mean() < 3
