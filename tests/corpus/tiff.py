"""TIFF files field by field, so that each field can lie. Written from the TIFF 6.0 text."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS = 273, 277, 278, 279
PLANAR, PREDICTOR, COLORMAP = 284, 317, 320
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = 330, 338, 339, 347
PIXEL_SCALE, TIEPOINT, MATRIX, GEO_KEYS, GEO_DOUBLES, GEO_ASCII = (
    33550, 33922, 34264, 34735, 34736, 34737,
)  # fmt: skip
GDAL_METADATA, GDAL_NODATA, NEW_SUBFILE = 42112, 42113, 254

SHORT, LONG, DOUBLE, ASCII, LONG8 = 3, 4, 12, 2, 16
_LETTERS = {
    1: "B", 2: "s", 3: "H", 4: "I", 5: "2I", 6: "b", 7: "B", 8: "h", 9: "i", 10: "2i", 11: "f",
    12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}
UTM_KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32618)
SCALE = (0.5, 0.5, 0.0)
CORNER = (0.0, 0.0, 0.0, 583000.0, 4507000.0, 0.0)

Fields = dict[int, "tuple[int, Any] | Raw | None"]


@dataclass(frozen=True)
class Raw:
    """A directory entry as it stands in the file, whatever it means."""

    kind: int
    count: int
    value: int


@dataclass(frozen=True)
class Layout:
    """How pixels are laid into a file."""

    order: str = "<"
    big: bool = False
    tile: tuple[int, int] | None = None
    rows: int = 32
    deflate: bool = False
    predictor: int = 1
    planar: bool = False
    ifd_first: bool = False


def tiff(
    pixels: NDArray[Any],
    layout: Layout = Layout(),
    *,
    fields: Fields | None = None,
    next_ifd: int | None = None,
    segments: Iterable[bytes] | None = None,
    geo: bool = True,
) -> bytes:
    """A GeoTIFF of (bands, height, width) pixels.

    fields: entries that replace those that the pixels need; None leaves one out. next_ifd: offset
    of a directory that is said to follow; -1 is this directory itself. segments: bytes of the
    strips or tiles in the pixels' stead.
    """
    chunks = list(encoded(pixels, layout) if segments is None else segments)
    entries: Fields = dict(_entries(pixels, layout, len(chunks)))
    if geo:
        entries |= {
            PIXEL_SCALE: (DOUBLE, SCALE),
            TIEPOINT: (DOUBLE, CORNER),
            GEO_KEYS: (SHORT, UTM_KEYS),
        }
    offsets_tag = STRIP_OFFSETS if layout.tile is None else TILE_OFFSETS
    counts_tag = STRIP_COUNTS if layout.tile is None else TILE_COUNTS
    long = LONG8 if layout.big else LONG
    start = 16 if layout.big else 8
    body = b"".join(chunks)
    body += b"\0" * (len(body) % 2)
    sizes = [len(chunk) for chunk in chunks]
    places = [0, *itertools.accumulate(sizes)][:-1]
    directory = b""
    for _ in range(2):  # twice: with the directory first, offsets depend on its size
        data_at = start + (len(directory) if layout.ifd_first else 0)
        ifd_at = start if layout.ifd_first else start + len(body)
        entries |= {
            offsets_tag: (long, tuple(data_at + place for place in places)),
            counts_tag: (long, tuple(sizes)),
        }
        final = {tag: value for tag, value in (entries | (fields or {})).items() if value}
        following = ifd_at if next_ifd == -1 else next_ifd or 0
        directory = ifd(final, ifd_at, layout.order, big=layout.big, following=following)
    head = header(ifd_at, layout.order, big=layout.big)
    return head + (directory + body if layout.ifd_first else body + directory)


def header(ifd_at: int, order: str = "<", *, big: bool = False) -> bytes:
    """The first 8 or 16 bytes."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        return mark + struct.pack(order + "HHHQ", 43, 8, 0, ifd_at)
    return mark + struct.pack(order + "HI", 42, ifd_at)


def ifd(
    entries: Fields, at: int, order: str = "<", *, big: bool = False, following: int = 0
) -> bytes:
    """A directory at offset ``at``, with the values that do not fit into its entries behind it."""
    size, count_letter, inline = (20, "Q", 8) if big else (12, "H", 4)
    letter = "Q" if big else "I"
    rows = sorted((tag, value) for tag, value in entries.items() if value is not None)
    fixed = struct.calcsize(order + count_letter) + size * len(rows) + inline
    table, values = [struct.pack(order + count_letter, len(rows))], b""
    for tag, value in rows:
        if isinstance(value, Raw):
            table.append(
                struct.pack(order + "HH" + 2 * letter, tag, value.kind, value.count, value.value)
            )
            continue
        kind, items = value
        packed = packed_values(kind, items, order)
        count = len(items) if isinstance(items, bytes | tuple) else 1
        count = count // 2 if kind in (5, 10) else count
        table.append(struct.pack(order + "HH" + letter, tag, kind, count))
        if len(packed) <= inline:
            table.append(packed.ljust(inline, b"\0"))
        else:
            table.append(struct.pack(order + letter, at + fixed + len(values)))
            values += packed + b"\0" * (len(packed) % 2)
    return b"".join(table) + struct.pack(order + letter, following) + values


def packed_values(kind: int, items: Any, order: str) -> bytes:
    """Values of a TIFF type as bytes."""
    if isinstance(items, bytes):
        return items
    items = items if isinstance(items, tuple) else (items,)
    return struct.pack(order + _LETTERS[kind][-1] * len(items), *items)


def encoded(pixels: NDArray[Any], layout: Layout) -> Iterable[bytes]:
    """The strips or tiles of (bands, height, width) pixels."""
    bands, height, width = pixels.shape
    rows, cols = layout.tile or (layout.rows, width)
    planes = [pixels[band : band + 1] for band in range(bands)] if layout.planar else [pixels]
    for plane in planes:
        for row in range(0, height, rows):
            for col in range(0, width, cols):
                part = plane[:, row : row + rows, col : col + cols]
                if layout.tile:
                    missing = rows - part.shape[1], cols - part.shape[2]
                    part = np.pad(part, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
                part = np.ascontiguousarray(np.moveaxis(part, 0, 2))
                if layout.predictor == 2:
                    part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
                data = part.astype(part.dtype.newbyteorder(layout.order)).tobytes()
                yield zlib.compress(data, 6) if layout.deflate else data


def _entries(pixels: NDArray[Any], layout: Layout, chunks: int) -> Fields:
    bands, height, width = pixels.shape
    kind = pixels.dtype.kind
    entries: Fields = {
        WIDTH: (LONG, width),
        HEIGHT: (LONG, height),
        BITS: (SHORT, (8 * pixels.dtype.itemsize,) * bands),
        COMPRESSION: (SHORT, 8 if layout.deflate else 1),
        PHOTOMETRIC: (SHORT, 2 if bands >= 3 else 1),
        SAMPLES: (SHORT, bands),
        PLANAR: (SHORT, 2 if layout.planar else 1),
        SAMPLE_FORMAT: (SHORT, (_FORMATS[kind],) * bands),
    }
    extra = bands - 3 if bands >= 3 else bands - 1
    if extra:
        entries[EXTRA_SAMPLES] = (SHORT, (0,) * extra)
    if layout.predictor != 1:
        entries[PREDICTOR] = (SHORT, layout.predictor)
    if layout.tile:
        entries |= {TILE_LENGTH: (LONG, layout.tile[0]), TILE_WIDTH: (LONG, layout.tile[1])}
    else:
        entries[ROWS_PER_STRIP] = (LONG, layout.rows)
    return entries
