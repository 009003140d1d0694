"""Previews of rasters without overviews: how many are held, and in what order they are made."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.conftest import noise, write_raster
from tests.serve.conftest import FIRST, ZOOM, decoded, mercator_transform
from tilemapper.errors import RasterError
from tilemapper.raster.source import SourceOptions, inspect_source
from tilemapper.serve.frame import frame_of
from tilemapper.serve.limits import GoneError
from tilemapper.serve.picture import Picture, Preparing
from tilemapper.serve.previews import Preview, Previews
from tilemapper.serve.views import Views

FAR = f"{ZOOM - 4}/{FIRST[0] >> 4}/{FIRST[1] >> 4}"


class Slow:
    """A level of the file that is read when ``go`` is set."""

    def __init__(self, go: threading.Event) -> None:
        self.go = go

    def read(self, row, col, height, width):
        assert self.go.wait(60)
        return np.full((height, width, 3), 7, np.uint8), np.ones((height, width), bool)

    def close(self):
        pass


def beginning(go: threading.Event, closed: threading.Event, side: int = 600):
    """What begins a preview of 600 x 600 px that is read when ``go`` is set."""
    views = Views(lambda: Slow(go))
    return lambda most: Preview(views, height=600, width=600, side=min(most, side), closed=closed)


def test_previews_of_all_rasters_lie_within_the_memory_for_tiles(tmp_path, serve, monkeypatch):
    monkeypatch.setattr("tilemapper.serve.picture.MOST_AVERAGED", 2)
    place = {"crs": "EPSG:3857", "transform": mercator_transform()}
    rasters = [
        write_raster(tmp_path / f"{seed}.tif", noise(600, 600, seed=seed), **place)
        for seed in range(4)
    ]
    limit = 4 * 2 * 4 * 300 * 300  # two of 300 px a side in a quarter of it
    with serve(*rasters, cache_bytes=limit) as (service, client):
        scenes = [scene["id"] for scene in client.get("/api/config").json()["scenes"]]
        pictures = []
        for scene in scenes:
            answer = client.get(f"/xyz/{scene}/source/{FAR}.png")
            assert answer.status_code == 200
            pictures.append(decoded(answer.content))
            assert 0 < client.get("/api/status").json()["preview_bytes"] <= limit // 4
        assert client.get("/api/status").json()["preview_bytes"] == 2 * 4 * 300 * 300
        # The first one was let go of, and is made again.
        service.tiles.forget(scenes[0])
        again = client.get(f"/xyz/{scenes[0]}/source/{FAR}.png")
        assert (decoded(again.content) == pictures[0]).all()
        assert (pictures[0] != pictures[1]).any()


def test_one_preview_is_made_at_a_time_so_that_none_is_dropped_unfinished():
    previews, go, closed = Previews(8 * 600 * 600), threading.Event(), threading.Event()
    first = previews.of("a", beginning(go, closed))
    assert previews.of("b", beginning(go, closed)) is None
    assert previews.of("a", beginning(go, closed)) is first
    go.set()
    assert first.done.wait(60)
    assert previews.of("b", beginning(go, closed)).done.wait(60)
    assert previews.held_bytes == 2 * 4 * 600 * 600
    previews.of("c", beginning(go, closed)).done.wait(60)
    assert previews.held_bytes == 2 * 4 * 600 * 600
    assert previews.of("b", lambda _side: pytest.fail("b was dropped, and a was older")).keep.all()


def test_a_failed_preview_that_is_dropped_late_leaves_the_next_one():
    previews, go, closed = Previews(8 * 600 * 600), threading.Event(), threading.Event()
    failed = previews.of("a", lambda _side: beginning(go, closed)(10))
    go.set()
    assert failed.done.wait(60)
    previews.drop("a", failed)
    again = previews.of("a", beginning(go, closed))
    previews.drop("a", failed)  # by another request that waited for it
    assert previews.of("a", lambda _side: pytest.fail("the next one was dropped")) is again


def test_no_preview_is_held_of_a_raster_that_is_closed(tmp_path, monkeypatch):
    place = {"crs": "EPSG:3857", "transform": mercator_transform()}
    source = write_raster(tmp_path / "a.tif", noise(600, 600), **place)
    monkeypatch.setattr("tilemapper.serve.picture.MOST_AVERAGED", 2)
    go = threading.Event()
    monkeypatch.setattr(Preview, "_fill", lambda self, view: go.wait(60))
    spec, previews = inspect_source(str(source), SourceOptions(), None), Previews(2**20)
    picture = Picture(spec, previews)
    picture.close()  # a request that has found it by then goes on
    with pytest.raises(GoneError):
        picture.tile(frame_of(spec), ZOOM - 4, FIRST[0] >> 4, FIRST[1] >> 4)
    assert previews.held_bytes == 0
    go.set()


def test_a_preview_of_a_raster_that_is_closed_is_no_picture_of_it():
    go, closed = threading.Event(), threading.Event()
    preview = beginning(go, closed)(600)
    closed.set()
    go.set()
    assert preview.done.wait(60)
    assert isinstance(preview.error, GoneError)


def test_a_preview_that_fails_while_a_tile_is_drawn_from_it_is_not_whole(tmp_path, monkeypatch):
    source = write_raster(
        tmp_path / "a.tif", noise(600, 600), crs="EPSG:3857", transform=mercator_transform()
    )
    monkeypatch.setattr("tilemapper.serve.picture.MOST_AVERAGED", 2)
    go = threading.Event()

    def fail(self, view):
        assert go.wait(60)
        raise RasterError("the disk is gone")

    monkeypatch.setattr(Preview, "_fill", fail)
    spec = inspect_source(str(source), SourceOptions(), None)
    previews = Previews(2**20)
    picture = Picture(spec, previews)
    draw = Picture._draw

    def ends_meanwhile(self, *args):
        tile = draw(self, *args)
        go.set()
        assert previews.of(picture, lambda _side: pytest.fail("is there")).done.wait(60)
        return tile

    monkeypatch.setattr(Picture, "_draw", ends_meanwhile)
    place = ZOOM - 4, FIRST[0] >> 4, FIRST[1] >> 4
    with pytest.raises(Preparing):
        picture.tile(frame_of(spec), *place)
    with pytest.raises(RasterError, match="the disk is gone"):
        picture.tile(frame_of(spec), *place)
    picture.close()
