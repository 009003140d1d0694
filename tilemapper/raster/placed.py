"""Whether GDAL knows where the file blocks lie that it is about to read.

It reads a TIFF's list of strips or tiles piece by piece. Where a piece cannot be read, libtiff
takes 0 for a place or for a number of bytes: the file's first bytes are then taken for pixels, or
the file block for one that is not stored. What has been asked for it does not read again.
"""

from __future__ import annotations

from collections.abc import Sequence

import rasterio
from rasterio.enums import Interleaving
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tilemapper.errors import RasterError
from tilemapper.raster.opening import open_raster, read_options


def check_places(
    path: str, src: DatasetReader, bands: Sequence[int], window: Window, overview: int | None
) -> None:
    """Asks GDAL where the file blocks of a local TIFF's window lie, before it reads them.

    bands: those that will be read, counted from 1. overview: the one that is open, from 0.

    Raises:
        RasterError: it could not read where one lies.
    """
    # Of pixels that have all bands side by side, the file blocks are those of the first.
    lists = bands if src.interleaving == Interleaving.band else bands[:1]
    with rasterio.Env(**read_options(path)):
        nowhere = [
            (band, row, col)
            for band in lists
            for row, col in _file_blocks(src, window)
            if _place(src, band, row, col) is None
        ]
        if not nowhere:
            return
        # A sparse file has such; another opening then says so too.
        with open_raster(path, allow_drivers=(src.driver,), overview=overview) as again:
            lost = [block for block in nowhere if _place(again, *block) is not None]
    if lost:
        _, row, col = lost[0]
        raise RasterError(
            f"{path}: where its file blocks lie could not be read, the one at row {row}, column "
            f"{col} for instance; check the disk, and run the same command again"
        )


def _file_blocks(src: DatasetReader, window: Window) -> list[tuple[int, int]]:
    """Row and column of the file blocks that a window of whole pixels touches."""
    height, width = src.block_shapes[0]
    top, left = int(window.row_off), int(window.col_off)
    rows = range(top // height, -(-(top + int(window.height)) // height))
    cols = range(left // width, -(-(left + int(window.width)) // width))
    return [(row, col) for row in rows for col in cols]


def _place(src: DatasetReader, band: int, row: int, col: int) -> str | None:
    """Offset of a file block; None where it is not stored, or none is known."""
    offset: str | None = src.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", dm="TIFF", bidx=band)
    return None if offset == "0" else offset
