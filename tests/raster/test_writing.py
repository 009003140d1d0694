"""A GeoTIFF written window by window: whole and as given, or not there."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal

from tilemapper.errors import TargetError
from tilemapper.raster import writing
from tilemapper.raster.writing import grid_writer

GRID = {
    "height": 600,
    "width": 700,
    "crs": "EPSG:32618",
    "transform": Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 4_500_000.0),
    "tags": {"NOTE": "made up"},
}


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)


def test_windows_end_up_in_one_file(tmp_path):
    image = pixels()
    with grid_writer(tmp_path / "a.tif", **GRID) as writer:
        for row in (0, 512):
            for col in (0, 512):
                writer.write(image[row : row + 512, col : col + 512], row=row, col=col)
        assert not (tmp_path / "a.tif").exists()
    with rasterio.open(tmp_path / "a.tif") as src:
        assert_array_equal(src.read().transpose(1, 2, 0), image)
        assert src.transform == GRID["transform"]
        assert src.tags()["NOTE"] == "made up"
        assert src.profile["tiled"] and src.profile["interleave"] == "pixel"


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), grid_writer(tmp_path / "a.tif", **GRID):
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_pixels_that_read_back_differently_are_an_error(tmp_path, monkeypatch):
    sums = iter(range(100))
    monkeypatch.setattr(writing.zlib, "crc32", lambda _: next(sums))
    with (
        pytest.raises(TargetError, match="reads back differently"),
        grid_writer(tmp_path / "a.tif", **GRID) as writer,
    ):
        writer.write(pixels()[:512, :512], row=0, col=0)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_one_clear_line(tmp_path):
    with (
        pytest.raises(TargetError, match="is missing; create it"),
        grid_writer(tmp_path / "no" / "a.tif", **GRID),
    ):
        pass
