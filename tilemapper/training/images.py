"""Decodes one image file to RGB uint8: JPEG, PNG and the like by Pillow, GeoTIFF by rasterio."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import PairError, RasterError
from tilemapper.extras import of_extra

with of_extra("train"):
    from PIL import Image, UnidentifiedImageError

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"}) | TIFF_SUFFIXES

# Below this a side has no texture left to learn from, and most metrics are undefined.
SMALLEST_SIDE = 16
# Of a TIFF; Pillow draws the same line for the other formats.
MOST_PIXELS = 178_956_970
# Modes whose pixels are 8 bits a channel; 16-bit and float need a scaling that only render knows.
EIGHT_BIT_MODES = frozenset({"RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "CMYK", "YCbCr", "1"})

ORIENTATION = 0x0112  # EXIF: 1 is as stored, 2 to 8 are turned or mirrored

RgbImage = NDArray[np.uint8]


def read_image(path: Path, *, on_turned: Callable[[], object] = lambda: None) -> RgbImage:
    """The pixels of an image file, (height, width, 3) uint8; alpha is dropped, grey repeated.

    They are taken as they are stored, as `render` takes them. ``on_turned`` is called where EXIF
    says that they are to be shown turned or mirrored: which of both the other image of a pair was
    made for cannot be told.

    Raises:
        PairError: the file is missing, truncated, not an image, or not 8 bits a channel.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise PairError(f"{path}: is no regular file, an image is needed; remove it")
    if path.suffix.lower() in TIFF_SUFFIXES:
        return _read_tiff(path)
    try:
        with Image.open(path) as image:
            stored = _stored(image)
            if image.mode not in EIGHT_BIT_MODES or "16" in stored:
                raise PairError(
                    f"{path}: mode {stored or image.mode} found, 8 bits a channel are needed; "
                    "convert it"
                )
            if _is_turned(image):
                on_turned()
            # Decodes to the last byte: a truncated file must fail here, not turn grey.
            return np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise PairError(f"{path}: not found, an image is needed; check the path") from error
    except UnidentifiedImageError as error:
        raise PairError(f"{path}: is no image that can be decoded; replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise PairError(f"{path}: {error}; cut it with tilemapper pairs cut") from error
    # Pillow's decoders raise SyntaxError (PNG), ValueError, EOFError on damage beside OSError.
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        if isinstance(error, PairError):
            raise
        raise PairError(f"{path}: cannot be decoded ({error}); replace or remove it") from error


def _is_turned(image: Image.Image) -> bool:
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # what is damaged there says nothing
        exif.load(image.info.get("exif", b""))
        return exif.get(ORIENTATION) in range(2, 9)
    return False


def _stored(image: Image.Image) -> str:
    """How a PNG's pixels are stored, such as "RGB;16B"; "" for other formats.

    Of those that have 16 bits and colours Pillow gives the upper 8 and calls their mode RGB: of
    imagery that fills 12 bits there would be 16 levels left.
    """
    if image.format != "PNG":
        return ""
    return str(next((tile[3] for tile in image.tile), ""))  # type: ignore[attr-defined]


def _read_tiff(path: Path) -> RgbImage:
    # Imported here: folders of JPEGs need no GDAL, and it takes a second to load.
    import rasterio

    from tilemapper.raster.opening import open_raster

    try:
        with open_raster(str(path)) as src:
            if src.count not in (3, 4) or src.dtypes[0] != "uint8":
                raise PairError(
                    f"{path}: {src.count} band(s) of {src.dtypes[0]} found, 3 of uint8 are needed; "
                    "cut pairs with tilemapper pairs cut"
                )
            if src.height * src.width > MOST_PIXELS:
                raise PairError(
                    f"{path}: {src.width}x{src.height} px found, at most {MOST_PIXELS} px are "
                    "loaded at once; cut it with tilemapper pairs cut"
                )
            bands: NDArray[np.uint8] = src.read([1, 2, 3])
    except RasterError as error:
        raise PairError(str(error)) from error
    except rasterio.errors.RasterioIOError as error:
        raise PairError(f"{path}: cannot be decoded ({error}); replace or remove it") from error
    return np.ascontiguousarray(bands.transpose(1, 2, 0))  # (3, h, w) -> (h, w, 3)


def check_size(name: str, image: RgbImage) -> None:
    """Refuses an image with a side below `SMALLEST_SIDE`.

    Raises:
        PairError: naming the image and its size.
    """
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise PairError(
            f"{name}: {width}x{height} px found, at least {SMALLEST_SIDE}x{SMALLEST_SIDE} "
            "are needed; remove it"
        )
