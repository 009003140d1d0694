"""Blocks for sinks of one's own, and lazy arrays: the pixels of `tilemapper.render`, to the bit."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import rasterio

import tilemapper
from tests.conftest import ORIGIN, noise, read_raster, write_raster
from tilemapper.errors import OptionError
from tilemapper.render.render import render


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """A raster of awkward size, part of it masked."""
    mask = np.ones((560, 1060), bool)
    mask[100:530, 300:900] = False
    return write_raster(tmp_path_factory.mktemp("holed") / "city.tif", noise(560, 1060), mask=mask)


@pytest.fixture(scope="module")
def rendered(holed, models):
    """What `render` makes of it."""
    return render(holed, holed.parent / "map.tif", models / "unet").target


def put_together(stream, name):
    """One layer of all blocks, (bands, height, width)."""
    whole = None
    for block in stream:
        pixels = getattr(block, name)
        pixels = pixels if pixels.ndim == 3 else pixels[None]
        if whole is None:
            whole = np.zeros((len(pixels), stream.height, stream.width), pixels.dtype)
        rows, cols = block.window.toslices()
        whole[:, rows, cols] = pixels
    return whole


@pytest.mark.parametrize("block", [512, None])
def test_a_streams_pixels_are_those_of_render(holed, models, rendered, block):
    blocks = tilemapper.stream(holed, models / "unet", block=block)
    assert np.array_equal(put_together(blocks, "pixels"), read_raster(rendered))
    with rasterio.open(rendered) as dst:
        assert np.array_equal(put_together(blocks, "valid")[0], dst.dataset_mask() > 0)
        assert (blocks.crs, blocks.transform) == (dst.crs, dst.transform)


def test_the_layers_of_a_palette_model_are_those_of_render(holed, models, tmp_path):
    paths = {name: tmp_path / f"{name}.tif" for name in ("classes", "uncertainty")}
    render(holed, tmp_path / "map.tif", models / "classes", **paths)
    blocks = tilemapper.stream(
        holed, models / "classes", classes=True, probabilities=True, uncertainty=True, block=512
    )
    for name, path in paths.items():
        assert np.array_equal(put_together(blocks, name), read_raster(path))
    shares = put_together(blocks, "probabilities")
    valid = put_together(blocks, "valid")[0]
    assert shares.shape[0] == len(blocks.palette) == 3
    assert np.abs(shares.astype(int).sum(axis=0)[valid] - 255).max() <= 1  # each is rounded
    # The likeliest class is chosen from the exact sums, of which these are roundings.
    chosen = put_together(blocks, "classes")
    likeliest = np.take_along_axis(shares, chosen, axis=0)[0]
    assert (likeliest[valid] >= shares.max(axis=0)[valid]).all()
    assert not shares[:, ~valid].any()


def test_blocks_come_in_order_and_say_where_they_are(make_raster, models):
    city = make_raster(560, 1060)
    blocks = tilemapper.stream(city, models / "identity", block=512)
    seen = list(blocks)
    assert len(blocks) == len(seen) == 6
    assert [(b.window.row_off, b.window.col_off) for b in seen[:4]] == [
        (0, 0),
        (0, 512),
        (0, 1024),
        (512, 0),
    ]
    with rasterio.open(city) as src:
        for block in seen:
            row, col = block.window.row_off, block.window.col_off
            assert (block.transform.c, block.transform.f) == (ORIGIN @ (col, row))
            assert np.array_equal(block.pixels, src.read(window=block.window))
    assert not any(block.overlap_disagreement for block in seen)
    assert seen[0].classes is seen[0].probabilities is seen[0].uncertainty is None


def test_a_stream_that_is_left_leaves_nothing_running(make_raster, models):
    import threading

    before = set(threading.enumerate())  # of other tests, which may end meanwhile
    blocks = iter(tilemapper.stream(make_raster(560, 1060), models / "slow", block=512))
    next(blocks)
    blocks.close()
    assert set(threading.enumerate()) <= before


def test_a_stream_changes_nothing_of_its_readers_gdal(make_raster, models):
    with rasterio.Env(GDAL_CACHEMAX=7):
        for _ in tilemapper.stream(make_raster(64, 64), models / "identity"):
            assert rasterio.env.getenv()["GDAL_CACHEMAX"] == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"driver": "GTiff"}, "driver: has no meaning"),
        ({"workers": 2}, "workers: has no meaning"),
        ({"probabilities": True}, "paints RGB"),
        ({"classes": True}, "paints RGB"),
        ({"overlap": 63}, "overlap 63"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_before_the_first_block(
    make_raster, models, options, words
):
    with pytest.raises(OptionError, match=words):
        tilemapper.stream(make_raster(64, 64), models / "identity", **options)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_a_lazy_array_computes_to_renders_pixels(holed, models, rendered, scheduler):
    lazy = tilemapper.to_dask(holed, models / "unet", block=512, layers=("map", "valid"))
    assert lazy.chunks == ((4,), (512, 48), (512, 512, 36))
    with dask.config.set(scheduler=scheduler):
        found = lazy.compute()
        part = lazy[:, 500:530, 1000:].compute()
    assert np.array_equal(found[:3], read_raster(rendered))
    with rasterio.open(rendered) as dst:
        assert np.array_equal(found[3], dst.dataset_mask())
    assert np.array_equal(part, found[:, 500:530, 1000:])


def test_equal_lazy_arrays_have_equal_keys_and_travel(holed, models):
    first = tilemapper.to_dask(holed, models / "classes", layers=["probabilities", "classes"])
    again = tilemapper.to_dask(holed, models / "classes", layers=["probabilities", "classes"])
    other = tilemapper.to_dask(
        holed, models / "classes", layers=["probabilities", "classes"], overlap=96
    )
    assert first.name == again.name != other.name
    travelled = pickle.loads(pickle.dumps(first))
    assert np.array_equal(travelled.compute(), first.compute())
    assert first.shape == (4, 560, 1060)


def test_layers_that_do_not_exist_are_named(holed, models):
    for wrong in ((), "map", ("doubt",)):
        with pytest.raises(OptionError, match="a list of map, valid"):
            tilemapper.to_dask(holed, models / "unet", layers=wrong)


def test_the_labelled_array_is_placed_on_the_ground(holed, models):
    labelled = tilemapper.to_xarray(holed, models / "unet", layers=("map", "valid"), block=512)
    assert labelled.dims == ("band", "y", "x")
    assert list(labelled.band.values) == ["red", "green", "blue", "valid"]
    with rasterio.open(holed) as src:
        assert (labelled.x[0].item(), labelled.y[-1].item()) == ORIGIN @ (0.5, 559.5)
        assert rasterio.crs.CRS.from_wkt(labelled.spatial_ref.attrs["crs_wkt"]) == src.crs
    point = labelled.sel(x=labelled.x[700].item(), y=labelled.y[10].item())
    whole = labelled.data.compute()
    assert np.array_equal(point.values, whole[:, 10, 700])
