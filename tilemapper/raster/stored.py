"""Where GDAL finds a GeoTIFF's encoded file blocks, and whether it decodes them to the same."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tilemapper.raster.closing import Closing
from tilemapper.raster.deflate import differences
from tilemapper.raster.opening import open_raster


class StoredBlocks(Closing):
    """The directories of a local GeoTIFF, counted from 0, as GDAL reads them; for one thread.

    Raises:
        RasterioError: a directory cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directories: dict[int, DatasetReader] = {}

    def place(self, directory: int, row: int, col: int) -> tuple[int, int]:
        """Offset and number of a file block's bytes; (0, 0) for one that is not stored."""
        if directory not in self._directories:
            self._directories[directory] = self._open(directory)
        src = self._directories[directory]
        at = src.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", dm="TIFF", bidx=1)
        size = src.get_tag_item(f"BLOCK_SIZE_{col}_{row}", dm="TIFF", bidx=1)
        return int(at or 0), int(size or 0)

    def _open(self, directory: int) -> DatasetReader:
        with warnings.catch_warnings():
            # Only the first directory is georeferenced.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(f"GTIFF_DIR:{directory + 1}:{self._path}", driver="GTiff")

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        for src in self._directories.values():
            src.close()
        self._directories.clear()


class LevelReader(Closing):
    """The pixels of a level of a GeoTIFF as any reader of it gets them, through GDAL.

    Args:
        path: of the file.
        level: 0 is the full resolution.
        side: of its file blocks in pixels.

    Raises:
        RasterError: it cannot be opened, or has no such level.
    """

    def __init__(self, path: Path, level: int, side: int) -> None:
        self._src = open_raster(str(path), overview=level - 1 if level else None)
        self._side = side
        self.height, self.width = self._src.height, self._src.width

    def shows(self, row: int, col: int, pixels: bytes, mask: bytes, *, predictor: bool) -> bool:
        """Whether a file block reads as what its DEFLATE streams hold; an empty mask is all valid.

        The streams are decoded by zlib, so that two decoders must agree.

        Raises:
            RasterioError: GDAL cannot read it.
        """
        side = self._side
        height = min(side, self.height - row * side)
        width = min(side, self.width - col * side)
        window = Window(col_off=col * side, row_off=row * side, width=width, height=height)
        block = np.ascontiguousarray(np.moveaxis(self._src.read(window=window), 0, 2))
        keep = np.ones((height, width), bool)
        try:
            wanted = np.frombuffer(zlib.decompress(pixels), np.uint8).reshape(side, side, -1)
            bits = np.frombuffer(zlib.decompress(mask), np.uint8) if mask else None
        except zlib.error:  # cut short, or damaged since it was compared
            return False
        if bits is not None:
            bits = bits.reshape(side, -1)
            keep = np.unpackbits(bits, axis=1)[:height, :width].astype(bool)
        return np.array_equal(
            differences(block) if predictor else block, wanted[:height, :width]
        ) and np.array_equal(self._src.read_masks(1, window=window) > 0, keep)

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        self._src.close()
