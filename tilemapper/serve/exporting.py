"""A finished map as a PNG, for those who want a picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tilemapper.errors import DiskFullError, TargetError
from tilemapper.raster.atomic import FULL
from tilemapper.raster.opening import open_raster
from tilemapper.serve.limits import TooLargeError

_STRIP = 512


def write_png(source: Path, target: Path, *, most_pixels: int) -> None:
    """Writes a map as a PNG, strip by strip; masked pixels become transparent.

    Raises:
        TooLargeError: it has more than ``most_pixels``, which few programs open as a PNG.
        DiskFullError: it does not fit on the disk.
        TargetError: it cannot be written.
    """
    part = target.with_suffix(".part")
    with open_raster(str(source)) as src:
        if src.height * src.width > most_pixels:
            raise TooLargeError(
                f"{src.width} x {src.height} px are more than a PNG of {most_pixels / 1e6:.0f} "
                "million; download the GeoTIFF"
            )
        masked = any(flag.name == "per_dataset" for flag in src.mask_flag_enums[0])
        bands = 4 if masked else 3
        try:
            with part.open("wb") as file:
                for chunk in png_chunks(_strips(src, bands), src.height, src.width, bands):
                    file.write(chunk)
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in FULL:
                raise DiskFullError("PNG: finds no room here; free some, or wait") from error
            raise TargetError(f"PNG: cannot be written ({error}); make room on the disk") from error


def _strips(src: DatasetReader, bands: int) -> Iterator[NDArray[np.uint8]]:
    for row in range(0, src.height, _STRIP):
        height = min(_STRIP, src.height - row)
        window = Window(col_off=0, row_off=row, width=src.width, height=height)
        strip = np.empty((height, src.width, bands), np.uint8)
        strip[..., :3] = src.read((1, 2, 3), window=window).transpose(1, 2, 0)
        if bands == 4:
            strip[..., 3] = src.dataset_mask(window=window)
        yield strip


def png_chunks(
    strips: Iterable[NDArray[np.uint8]], height: int, width: int, bands: int, level: int = 6
) -> Iterator[bytes]:
    """A PNG piece by piece, from strips of (n, width, bands) uint8, RGB or RGBA, from the top.

    level: of zlib; 1 is several times faster than 6 and a quarter larger.
    """
    kind = {3: 2, 4: 6}[bands]
    yield b"\x89PNG\r\n\x1a\n"
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    packer = zlib.compressobj(level)
    for strip in strips:
        # Each pixel less the one on its left, PNG's filter 1: cheap, and half the size of none.
        lines = np.empty((len(strip), 1 + width * bands), np.uint8)
        lines[:, 0] = 1
        lines[:, 1 : 1 + bands] = strip[:, 0]
        lines[:, 1 + bands :] = (strip[:, 1:] - strip[:, :-1]).reshape(len(strip), -1)
        if packed := packer.compress(lines.tobytes()):
            yield _chunk(b"IDAT", packed)
    yield _chunk(b"IDAT", packer.flush())
    yield _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
