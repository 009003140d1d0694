"""File blocks as DEFLATE streams: what readers decode is what went in."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from tilemapper.errors import StagingError
from tilemapper.raster import deflate
from tilemapper.raster.deflate import deflate_blocks
from tilemapper.raster.encode import Encoding
from tilemapper.raster.tiff import encoded_tiles

SIDE = 16


def decoded(stream: bytes, bands: int, *, predictor: bool) -> np.ndarray:
    """What TIFF 6.0 says a reader does: inflate, then add up along the rows."""
    block = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(SIDE, SIDE, bands)
    return np.cumsum(block, axis=1, dtype=np.uint8) if predictor else block


@settings(max_examples=60, deadline=None)
@given(
    bands=st.sampled_from([1, 3]),
    columns=st.integers(1, 4),
    level=st.integers(1, 9),
    predictor=st.booleans(),
    flat=st.booleans(),
    seed=st.integers(0, 999),
)
def test_every_stream_decodes_to_its_pixels(bands, columns, level, predictor, flat, seed):
    rng = np.random.default_rng(seed)
    shape = (bands, SIDE, SIDE * columns)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    if flat:
        pixels = (pixels > 250).astype(np.uint8) * 200
    streams = deflate_blocks(pixels, side=SIDE, level=level, predictor=predictor)
    assert len(streams) == columns
    shown = np.concatenate([decoded(one, bands, predictor=predictor) for one in streams], axis=1)
    assert np.array_equal(np.moveaxis(shown, 2, 0), pixels)


def test_the_same_pixels_give_the_same_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    first, second = (
        deflate_blocks(given, side=SIDE, level=1, predictor=True)
        for given in (pixels, np.asfortranarray(pixels))
    )
    assert first == second


@pytest.mark.parametrize("level", [1, 9])
def test_an_encoder_that_lies_is_found(monkeypatch, level):
    other = zlib.compress(bytes(3 * SIDE * SIDE))
    monkeypatch.setattr(deflate.isal_zlib, "compress", lambda *_: other)
    monkeypatch.setattr(deflate.zlib, "compress", lambda *_: other)
    with pytest.raises(StagingError, match="do not decode to what was rendered"):
        deflate_blocks(np.ones((3, SIDE, SIDE), np.uint8), side=SIDE, level=level, predictor=False)


def test_a_slow_level_is_smaller():
    steps = np.random.default_rng(0).integers(-3, 4, (1, 256, 256)).cumsum(axis=2) % 64
    pixels = steps.astype(np.uint8)
    fast, small = (
        sum(map(len, deflate_blocks(pixels, side=256, level=level, predictor=True)))
        for level in (1, 9)
    )
    assert small < fast


def streets() -> np.ndarray:
    """Streets and blocks of few colours, (3, 512, 512), as a palette model paints them."""
    rng = np.random.default_rng(0)
    classes = np.kron(rng.integers(0, 5, (64, 64)), np.ones((8, 8), int))
    classes[::37], classes[:, ::41] = 5, 5
    colours = rng.integers(180, 256, (6, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.moveaxis(colours[classes], 2, 0))


def roofs() -> np.ndarray:
    """Surfaces of one texture with a fine grain, (3, 512, 512), as a city has them."""
    rng = np.random.default_rng(0)
    surface = np.kron(rng.integers(40, 200, (3, 16, 16)), np.ones((32, 32), int))
    texture = np.tile(rng.integers(-6, 7, (3, 64, 64)), (1, 8, 8))
    return (surface + texture + rng.normal(0, 0.3, surface.shape).round()).astype(np.uint8)


def overview(pixels: np.ndarray) -> np.ndarray:
    """Halved and repeated to its size: the colours of borders are mixed."""
    small = pixels.reshape(3, 256, 2, 256, 2).mean(axis=(2, 4)).astype(np.uint8)
    return np.tile(small, (1, 2, 2))


@pytest.mark.parametrize(
    "pixels", [streets(), overview(streets()), roofs()], ids=["map", "its overview", "city"]
)
def test_no_file_block_is_larger_than_gdal_makes_it(pixels):
    ours = deflate_blocks(pixels, side=512, level=1, predictor=True)
    profile = Encoding().profile() | {"count": 3, "height": 512, "width": 512}
    with MemoryFile() as memory:
        with memory.open(**profile, transform=Affine(1, 0, 1, 0, -1, 1)) as dst:
            dst.write(pixels)
        theirs = encoded_tiles(memory.getbuffer())
    assert len(ours[0]) <= 1.02 * len(theirs[0])
