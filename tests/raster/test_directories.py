"""What GDAL passes over in silence, each made field by field."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio

from tests.corpus.case import PIXELS
from tests.corpus.tiff import (
    ASCII,
    BITS,
    GDAL_METADATA,
    GEO_KEYS,
    LONG,
    PHOTOMETRIC,
    SHORT,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    TILE_LENGTH,
    TILE_WIDTH,
    Fields,
    Layout,
    Raw,
    tiff,
)
from tilemapper.errors import RasterError
from tilemapper.raster.directories import MAX_METADATA_ITEMS, check_directories
from tilemapper.raster.opening import open_raster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

LAYOUTS = [
    Layout(order=order, big=big, tile=tile, ifd_first=first, planar=planar)
    for order in "<>"
    for big in (False, True)
    for tile in (None, (16, 48))
    for first in (False, True)
    for planar in (False, True)
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_a_sound_file_of_any_layout_is_opened(tmp_path: Path, layout: Layout):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(PIXELS, layout))
    with open_raster(str(path)) as src:
        assert src.crs.to_epsg() == 32618
        assert (src.read() == PIXELS).all()


@pytest.mark.parametrize("lost", [2, 10, 60])
def test_a_file_that_lost_its_last_bytes_is_refused_and_not_placed_nowhere(tmp_path, lost):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(PIXELS)[:-lost])
    with rasterio.open(path) as src:
        assert src.crs is None  # GDAL goes on without
    with pytest.raises(RasterError, match="georeferencing lies beyond its end"):
        open_raster(str(path))


def test_a_mask_that_is_cut_off_is_missed(tmp_path: Path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(PIXELS, next_ifd=10**6))
    with pytest.raises(RasterError, match="a directory lies beyond its end"):
        open_raster(str(path))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({STRIP_OFFSETS: (LONG, 8)}, "1 strips listed (type 4), its size needs 3"),
        ({STRIP_OFFSETS: (ASCII, b"ab\0")}, "(type 2)"),
        ({STRIP_OFFSETS: (9, (-8, -8, -8))}, "(type 9)"),
        ({STRIP_OFFSETS: Raw(LONG, 3, 10**9)}, "the list of strips lies beyond its end"),
        ({STRIP_COUNTS: (LONG, 8640)}, "1 strips listed"),
        ({278: (LONG, 1)}, "its size needs 70"),
        ({284: (SHORT, 2)}, "its size needs 9"),
        ({PHOTOMETRIC: (SHORT, 9)}, "bands are ICCLAB"),
        ({GEO_KEYS: Raw(SHORT, 16, 10**9)}, "georeferencing lies beyond its end"),
        ({TILE_WIDTH: (LONG, 2**15), TILE_LENGTH: (LONG, 2**15)}, "one file block holds 3072 MiB"),
    ],
)
def test_what_gdal_would_read_as_black_or_nowhere_is_refused(tmp_path, fields: Fields, words: str):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(PIXELS, fields=fields))
    with pytest.raises(RasterError) as caught:
        check_directories(str(path))
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_metadata_that_would_keep_gdal_busy_for_a_minute_is_refused(tmp_path: Path):
    path = tmp_path / "a.tif"
    for items, refused in ((MAX_METADATA_ITEMS // 10, False), (MAX_METADATA_ITEMS + 1, True)):
        text = b"".join(b'<Item name="k%d">v</Item>' % n for n in range(items))
        text = b"<GDALMetadata>" + text + b"</GDALMetadata>\0"
        path.write_bytes(tiff(PIXELS, fields={GDAL_METADATA: (ASCII, text)}))
        if refused:
            with pytest.raises(RasterError, match="items"):
                open_raster(str(path))
        else:
            open_raster(str(path)).close()


def test_so_are_as_many_items_in_a_sidecar(tmp_path: Path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(PIXELS))
    items = "".join(f'<MDI key="k{n}">v</MDI>' for n in range(MAX_METADATA_ITEMS + 1))
    aux = f"<PAMDataset><Metadata>{items}</Metadata></PAMDataset>"
    Path(f"{path}.aux.xml").write_text(aux)
    with pytest.raises(RasterError, match="items of metadata"):
        open_raster(str(path))


def test_directories_that_follow_one_another_in_a_circle_end(tmp_path: Path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(PIXELS, next_ifd=-1))
    check_directories(str(path))


def test_a_masks_file_block_is_looked_at_too(tmp_path: Path):
    path = tmp_path / "a.tif"
    one_bit = {BITS: (SHORT, 1), TILE_WIDTH: (LONG, 2**16), TILE_LENGTH: (LONG, 2**13)}
    mask = tiff(PIXELS[:1], fields=one_bit, geo=False)
    at = int.from_bytes(mask[4:8], "little")
    whole = tiff(PIXELS, Layout(ifd_first=True))
    # The mask's directory, moved behind the raster; its values fit into its entries.
    path.write_bytes(tiff(PIXELS, Layout(ifd_first=True), next_ifd=len(whole)) + mask[at:])
    with pytest.raises(RasterError, match="one file block holds 512 MiB"):
        check_directories(str(path))
