"""Pixels to encoded GeoTIFF file blocks in memory: DEFLATE by ISA-L, the rest by GDAL."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from tilemapper.errors import OptionError, StagingError
from tilemapper.raster import tiff
from tilemapper.raster.deflate import SLOWEST, deflate_blocks

FILE_BLOCK = 512
# What the one-pass writer encodes itself; anything else goes through GDAL's own drivers after it.
COMPRESSIONS = ("DEFLATE", "ZSTD", "LZW", "NONE")

# And of what only GDAL can do: what stores pixels otherwise, but as they are.
LOSSLESS = (*COMPRESSIONS, "LZMA", "PACKBITS")
_HARMLESS = {
    "COMPRESS", "LEVEL", "PREDICTOR", "ZLEVEL", "ZSTD_LEVEL", "BLOCKSIZE", "BLOCKXSIZE",
    "BLOCKYSIZE", "TILED", "INTERLEAVE", "BIGTIFF", "NUM_THREADS", "SPARSE_OK", "GEOTIFF_VERSION",
    "STATISTICS", "OVERVIEWS", "OVERVIEW_COMPRESS", "OVERVIEW_COUNT", "OVERVIEW_RESAMPLING",
    "RESAMPLING",
}  # fmt: skip


@dataclass(frozen=True)
class Encoding:
    """How file blocks are encoded: the creation options of GDAL's GTiff driver."""

    compress: str = "DEFLATE"
    level: int | None = 1
    predictor: bool = True
    colour_map: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)

    def profile(self) -> dict[str, Any]:
        """Creation options for rasterio."""
        options: dict[str, Any] = {
            "driver": "GTiff",
            "dtype": "uint8",
            "tiled": True,
            "blockxsize": FILE_BLOCK,
            "blockysize": FILE_BLOCK,
            "interleave": "pixel",
            "compress": self.compress,
        }
        if self.compress == "DEFLATE" and self.level:
            options["zlevel"] = self.level
        if self.compress == "ZSTD" and self.level:
            options["zstd_level"] = self.level
        if self.predictor and self.compress != "NONE":
            options["predictor"] = 2
        return options


def encode_rows(pixels: NDArray[np.uint8], encoding: Encoding) -> list[bytes]:
    """Encodes one row of file blocks, left to right.

    Args:
        pixels: (bands, 512, width) uint8, width a multiple of 512.
        encoding: compression, level, predictor.

    Raises:
        StagingError: what was encoded does not decode to the same pixels.
    """
    if encoding.compress == "DEFLATE":
        level = min(encoding.level or 1, SLOWEST)
        return deflate_blocks(pixels, side=FILE_BLOCK, level=level, predictor=encoding.predictor)
    return _encode_by_gdal(pixels, encoding)


def _encode_by_gdal(pixels: NDArray[np.uint8], encoding: Encoding) -> list[bytes]:
    bands, height, width = pixels.shape
    profile = encoding.profile() | {"count": bands, "height": height, "width": width}
    if bands == 3:
        profile["photometric"] = "RGB"
    try:
        with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
            with memory.open(**profile, transform=Affine(1, 0, 1, 0, -1, 1)) as dst:
                dst.write(pixels)
            encoded = tiff.encoded_tiles(memory.getbuffer())
            with memory.open() as src:
                same = np.array_equal(src.read(), pixels)
    except RasterioError as error:
        raise StagingError(
            f"encoder: GDAL failed ({error}); check memory, and run again"
        ) from error
    if not same:
        raise StagingError(
            "encoder: the encoded pixels do not decode to what was rendered; check this machine's "
            "memory and its GDAL, and run the same command again"
        )
    return encoded


def encode_mask(keep: NDArray[np.bool_]) -> bytes:
    """One file block of a validity mask, (512, 512) bool, as TIFF stores it: bits, deflated."""
    return zlib.compress(np.packbits(keep, axis=1).tobytes(), 6)


def template_tags(
    encoding: Encoding,
    *,
    bands: int,
    crs: Any,
    transform: tuple[float, ...] | None,
    tags: Mapping[str, str],
) -> tiff.Tags:
    """The TIFF tags that GDAL writes for such a raster: format, georeferencing, metadata."""
    profile = encoding.profile() | {"count": bands, "height": FILE_BLOCK, "width": FILE_BLOCK}
    if bands == 3:
        profile["photometric"] = "RGB"
    # Without a transform GDAL warns; so it gets one, whose tags are dropped again.
    profile["transform"] = Affine(*(transform or (1, 0, 1, 0, -1, 1))[:6])
    with MemoryFile() as memory:
        with memory.open(**profile, crs=crs) as dst:
            dst.update_tags(**tags)
            if encoding.colour_map:
                dst.write_colormap(1, dict(encoding.colour_map))
        found = tiff.read_directory(memory.getbuffer())
    placing = () if transform is not None else tiff.PLACING
    return {tag: value for tag, value in found.items() if tag not in placing}


def stored_crs(crs: Any) -> Any:
    """What a GeoTIFF gives back for a CRS; None for one that it cannot hold."""
    # Left to itself GDAL keeps such a CRS in a file beside, which the output will not have.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        size = {"width": 1, "height": 1, "count": 1, "dtype": "uint8"}
        transform = Affine(1, 0, 1, 0, -1, 1)
        with memory.open(driver="GTiff", crs=crs, transform=transform, **size):
            pass
        with memory.open() as src:
            return src.crs


def encoding_of(options: Mapping[str, str]) -> Encoding | None:
    """The encoding that creation options ask for; None when only GDAL's driver can do it.

    Raises:
        OptionError: a level that is no number.
    """
    known = {key.upper(): value for key, value in options.items()}
    if set(known) - {"COMPRESS", "LEVEL", "PREDICTOR"}:
        return None
    compress = known.get("COMPRESS", "DEFLATE").upper()
    predictor = known.get("PREDICTOR", "YES").upper()
    if compress not in COMPRESSIONS or predictor not in ("YES", "NO", "STANDARD", "1", "2"):
        return None
    try:
        level = int(known.get("LEVEL", "1"))
    except ValueError:
        raise OptionError(f"--co LEVEL={known['LEVEL']}: must be a whole number") from None
    return Encoding(compress, level, predictor in ("YES", "STANDARD", "2"))


def is_lossless(options: Mapping[str, str]) -> bool:
    """Whether creation options are known to keep every pixel as it is."""
    known = {key.upper(): value.upper() for key, value in options.items()}
    return known.get("COMPRESS", "DEFLATE") in LOSSLESS and set(known) <= _HARMLESS
