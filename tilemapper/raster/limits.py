"""Limits that a header must keep before a pixel is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.enums import Interleaving, MaskFlags
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError

MAX_BANDS = 1000
MAX_PIXELS = 10**12
MAX_FILE_BLOCK_BYTES = 256 * 2**20
# Deflate reaches 1032, zstd on flat colour some 20,000; small rasters may do as they like.
MAX_RATIO = 20_000
RATIO_COUNTS_FROM_BYTES = 8 * 2**30
STORED_SAMPLE = 10_000  # file blocks, which takes 0.1 s


def check_header(src: DatasetReader, path: str) -> None:
    """Refuses a raster whose header promises absurd sizes.

    Raises:
        RasterError: too many bands or pixels, a file block of more than 256 MiB, or a file that
            would unpack to thousands of times its size.
    """
    if src.count < 1:
        raise RasterError(f"{path}: no band found, three are needed; name a subdataset's own file")
    if src.count > MAX_BANDS:
        raise RasterError(
            f"{path}: {src.count} bands found, at most {MAX_BANDS} are read; "
            "extract three with gdal_translate -b"
        )
    if src.height * src.width > MAX_PIXELS:
        raise RasterError(
            f"{path}: {src.width} x {src.height} px found, at most 10^12 px are read; "
            "cut it into parts with gdal_translate -srcwin"
        )
    sizes = [_item_bytes(name) for name in src.dtypes]
    together = sum(sizes) if src.interleaving == Interleaving.pixel else max(sizes)
    block_bytes = max(rows * cols for rows, cols in src.block_shapes) * together
    if src.driver == "PNG" and _is_interlaced(path):
        block_bytes = src.height * src.width * sum(sizes)
    if block_bytes > MAX_FILE_BLOCK_BYTES:
        raise RasterError(
            f"{path}: one file block holds {block_bytes / 2**20:.0f} MiB, at most "
            f"{MAX_FILE_BLOCK_BYTES >> 20} are read; rewrite it with gdal_translate -co TILED=YES"
        )
    if src.driver != "VRT":  # which holds no pixels of its own
        _check_ratio(src, src.height * src.width * sum(sizes), path)


def _check_ratio(src: DatasetReader, unpacked_bytes: int, path: str) -> None:
    file = Path(path)
    if unpacked_bytes < RATIO_COUNTS_FROM_BYTES or not file.is_file():
        return
    packed_bytes = max(1, file.stat().st_size)
    if unpacked_bytes > MAX_RATIO * packed_bytes:
        unpacked_bytes = int(unpacked_bytes * _stored_share(src))
    if unpacked_bytes > MAX_RATIO * packed_bytes:
        raise RasterError(
            f"{path}: {packed_bytes} bytes would unpack to {unpacked_bytes / 2**30:.0f} GiB, "
            "which looks like a bomb; cut out the part you need with gdal_translate -projwin"
        )


def _stored_share(src: DatasetReader) -> float:
    """Share of a masked TIFF's file blocks that are stored, of a sample.

    The others are no work: GDAL fills them in without reading a byte, and they are not valid. Where
    every pixel is valid they are as much work as any.
    """
    if src.driver != "GTiff" or MaskFlags.all_valid in src.mask_flag_enums[0]:
        return 1.0
    rows, cols = src.block_shapes[0]
    down, across = -(-src.height // rows), -(-src.width // cols)
    chosen = range(0, down * across, max(1, down * across // STORED_SAMPLE))
    stored = 0
    for k, block in enumerate(chosen):
        item = f"BLOCK_SIZE_{block % across}_{block // across}"
        stored += src.get_tag_item(item, dm="TIFF", bidx=1 + k % src.count) is not None
    return stored / len(chosen)


def _is_interlaced(path: str) -> bool:
    """Whether a PNG's rows come in passes, so that all of it has to be held."""
    if not Path(path).is_file():
        return True  # remote: unknown
    with Path(path).open("rb") as file:
        return file.read(29)[28:29] == b"\x01"


def _item_bytes(dtype: str) -> int:
    """Bytes of a pixel of one band; rasterio names one type that numpy does not know."""
    return 4 if dtype == "complex_int16" else np.dtype(dtype).itemsize
