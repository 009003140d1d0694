from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemapper.errors import StagingError
from tilemapper.raster import encode
from tilemapper.raster.encode import Encoding, encode_rows, encoding_of
from tilemapper.raster.pyramid import halve, level_count


def reference_half(pixels: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bands, height, width = pixels.shape
    out = np.zeros((bands, -(-height // 2), -(-width // 2)), np.uint8)
    some = np.zeros(out.shape[1:], bool)
    for row in range(out.shape[1]):
        for col in range(out.shape[2]):
            window = (slice(2 * row, 2 * row + 2), slice(2 * col, 2 * col + 2))
            kept = keep[window]
            some[row, col] = kept.any()
            if kept.any():
                values = pixels[(slice(None), *window)][:, kept].astype(float)
                out[:, row, col] = np.floor(values.mean(axis=1) + 0.5)
    return out, some


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    share=st.sampled_from([0, 0.5, 0.9, 1]),
    seed=st.integers(0, 99),
)
def test_halving_is_the_mean_of_the_kept_pixels(height, width, share, seed):
    rng = np.random.default_rng(seed)
    keep = rng.random((height, width)) < share
    pixels = rng.integers(0, 256, (3, height, width), dtype=np.uint8) * keep
    got, some = halve(pixels, keep, average=True)
    expected, expected_some = reference_half(pixels, keep)
    assert np.array_equal(some, expected_some)
    assert np.array_equal(got, expected)


def test_classes_are_picked_never_mixed():
    pixels = np.array([[[9, 1], [2, 3]]], np.uint8)
    keep = np.array([[False, True], [True, True]])
    picked, some = halve(pixels, keep, average=False)
    assert picked.tolist() == [[[1]]]
    assert some.all()


@pytest.mark.parametrize(
    ("height", "width", "levels"),
    [(1, 1, 1), (512, 512, 1), (513, 2, 2), (4096, 100, 4), (9000, 1, 1)],
)
def test_levels_end_when_one_file_block_holds_all(height, width, levels):
    assert level_count(height, width) == levels


def test_an_encoder_that_lies_is_found(monkeypatch):
    class Liar:
        def __init__(self, *_args: object, **_kw: object) -> None:
            pass

        @staticmethod
        def array_equal(_a: object, _b: object) -> bool:
            return False

    monkeypatch.setattr(encode, "np", Liar)
    with pytest.raises(StagingError, match="do not decode to what was rendered"):
        encode_rows(np.zeros((3, 512, 512), np.uint8), Encoding("ZSTD"))


@pytest.mark.parametrize("compress", ["DEFLATE", "ZSTD", "LZW", "NONE"])
def test_each_compression_gives_one_file_block_a_column(compress):
    options = encoding_of({"COMPRESS": compress})
    assert options is not None
    assert len(encode_rows(np.zeros((3, 512, 1536), np.uint8), options)) == 3


def test_options_that_only_gdal_knows_are_left_to_it():
    assert encoding_of({"COMPRESS": "JPEG"}) is None
    assert encoding_of({"BLOCKSIZE": "256"}) is None
    assert encoding_of({}) == Encoding()
