"""Writes a large tiled GeoTIFF window by window, and proves that it reached the disk."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from tilemapper.errors import DiskFullError, TargetError, TilemapperError, too_many_files
from tilemapper.raster.atomic import atomic_write

FILE_BLOCK = 512
# Fixed, since the order in which GDAL writes file blocks, and so the bytes of the file, depend on
# it; small, since every file block is written once and never wanted again.
_CACHE_BYTES = 64 << 20


class GridWriter:
    """An RGB GeoTIFF being written; windows must be whole file blocks, or end at the edge."""

    def __init__(self, dst: DatasetWriter, part: Path, path: Path) -> None:
        self._dst, self._part, self._path = dst, part, path
        self.sums: dict[tuple[int, int, int, int], int] = {}

    def write(self, pixels: NDArray[np.uint8], *, row: int, col: int) -> None:
        """Writes a window of (height, width, 3) uint8 with its first pixel at ``row``, ``col``."""
        height, width = pixels.shape[:2]
        bands = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        self._dst.write(bands, window=Window(col_off=col, row_off=row, width=width, height=height))
        self.sums[row, col, height, width] = zlib.crc32(bands.tobytes())

    def finish(self) -> None:
        """Closes the file and reads it back; once all files are finished, none is missing.

        Raises:
            DiskFullError, TargetError: as of `grid_writer`.
        """
        if self._dst.closed:
            return
        try:
            self._dst.close()
            _read_back(self._part, self.sums)
        except RasterioError as error:
            raise _writing_failed(self._path, error) from error


@contextlib.contextmanager
def grid_writer(
    path: Path, *, height: int, width: int, crs: str, transform: Affine, tags: Mapping[str, str]
) -> Iterator[GridWriter]:
    """Yields a writer; once all windows are written, the whole file appears under ``path``.

    Tiles of 512 pixels, DEFLATE level 1, predictor 2. Nothing in the file depends on when or
    where it was written.

    Raises:
        DiskFullError: the disk is full.
        TargetError: the path may not be written, or what was written does not read back.
    """
    profile = {
        "driver": "GTiff", "count": 3, "dtype": "uint8", "height": height, "width": width,
        "crs": crs, "transform": transform, "photometric": "RGB", "interleave": "pixel",
        "tiled": True, "blockxsize": FILE_BLOCK, "blockysize": FILE_BLOCK,
        "compress": "DEFLATE", "zlevel": 1, "predictor": 2, "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    with atomic_write(path) as part, rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        try:
            with rasterio.open(part, "w", **profile) as dst:
                dst.update_tags(**tags)
                writer = GridWriter(dst, part, path)
                yield writer
                writer.finish()
        except RasterioError as error:
            raise _writing_failed(path, error) from error


def _read_back(part: Path, sums: Mapping[tuple[int, int, int, int], int]) -> None:
    # GDAL may end without an error on a full disk, so the pixels themselves are compared.
    with rasterio.open(part, driver="GTiff") as src:
        for (row, col, height, width), expected in sums.items():
            window = Window(col_off=col, row_off=row, width=width, height=height)
            if zlib.crc32(src.read(window=window).tobytes()) != expected:
                raise RasterioError(f"the window at row {row}, column {col} reads back differently")


def _writing_failed(path: Path, error: RasterioError) -> TilemapperError:
    folder = path.absolute().parent
    if not folder.is_dir():
        return TargetError(f"{path}: folder {folder} is missing; create it or choose another path")
    if shutil.disk_usage(folder).free < 8 << 20:
        return DiskFullError(
            f"{path}: the disk is full; free some space and run the same command again"
        )
    reason = " ".join(str(error.__cause__ or error).split())
    return too_many_files(path, reason) or TargetError(
        f"{path}: cannot be written ({reason}); choose another path"
    )
