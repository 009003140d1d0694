"""File blocks whose place GDAL does not know are told from those that are not stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.raster.made import city, write_raster
from tilemapper.errors import RasterError
from tilemapper.raster import placed
from tilemapper.raster.levels import LevelView
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source

TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64}


class Forgetful:
    """An open TIFF whose list of tiles could not be read where one of them lies."""

    def __init__(self, src, tile: str, said: str | None) -> None:
        self._src, self._tile, self._said = src, tile, said

    def __getattr__(self, name: str):
        return getattr(self._src, name)

    def get_tag_item(self, name: str, **kw):
        return self._said if name == self._tile else self._src.get_tag_item(name, **kw)


def forgetting(view: SourceView, tile: str, said: str | None) -> None:
    view._pixels.src = Forgetful(view._pixels.src, tile, said)  # type: ignore[assignment]


# Of the two lists, the one of places was not read, or the one of lengths.
@pytest.mark.parametrize("said", ["0", None])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_pixels_of_a_tile_whose_place_is_not_known_are_refused(tmp_path: Path, said, interleave):
    path = write_raster(tmp_path / "a.tif", city(130, 200), interleave=interleave, **TILES)
    with SourceView(inspect_source(path, SourceOptions(gsd="native"), None)) as view:
        forgetting(view, "BLOCK_OFFSET_2_1", said)
        for window in ((0, 0, 64, 200), (0, 0, 130, 128), (128, 0, 2, 200)):
            row, col, height, width = window
            view.read(row=row, col=col, height=height, width=width)
        with pytest.raises(RasterError, match=r"a\.tif: where its file .*row 1, column 2"):
            view.read(row=127, col=191, height=1, width=1)


def test_tiles_that_are_not_stored_are_read_as_such(tmp_path: Path):
    pixels = city(130, 200)
    pixels[:, :64, :64] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0, sparse_ok=True, **TILES)
    with rasterio.open(path) as src:
        assert src.get_tag_item("BLOCK_OFFSET_0_0", dm="TIFF", bidx=1) is None
    with SourceView(inspect_source(path, SourceOptions(gsd="native"), None)) as view:
        rgb, valid = view.read(row=0, col=0, height=130, width=200)
    assert not valid[:64, :64].any() and valid[64:].all()
    np.testing.assert_array_equal(rgb[64:], pixels[:, 64:].transpose(1, 2, 0))


def test_overviews_are_asked_for_their_own_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixels = city(260, 400)
    pixels[:, :128, :128] = 0  # of the overview, too, a tile is not stored
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0, sparse_ok=True, **TILES)
    with rasterio.Env(SPARSE_OK_OVERVIEW=True), rasterio.open(path, "r+") as dst:
        dst.build_overviews([2])
    spec = inspect_source(path, SourceOptions(gsd="native"), None)
    opened = []
    real = placed.open_raster

    def noted(named: str, **kw):
        opened.append(kw["overview"])
        return real(named, **kw)

    monkeypatch.setattr(placed, "open_raster", noted)
    with LevelView(spec, overview=0) as view:
        rgb, _ = view.read(0, 0, 130, 200)
    assert opened == [0]
    assert not rgb[:64, :64].any() and rgb[64:].any()
