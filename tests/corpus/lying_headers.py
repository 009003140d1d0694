"""TIFF files of 70 x 90 noise in which one field lies, or the file ends early."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import (
    AS_READ,
    HEIGHT,
    PIXELS,
    REFUSED,
    SAME,
    WIDTH,
    Case,
    Outcome,
    Right,
    late,
)
from tests.corpus.tiff import (
    ASCII,
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    GDAL_METADATA,
    GDAL_NODATA,
    GEO_ASCII,
    GEO_KEYS,
    JPEG_TABLES,
    LONG,
    LONG8,
    NEW_SUBFILE,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    SHORT,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    SUB_IFDS,
    TILE_COUNTS,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    Fields,
    Layout,
    Raw,
    header,
    tiff,
)
from tests.corpus.tiff import HEIGHT as HEIGHT_TAG
from tests.corpus.tiff import WIDTH as WIDTH_TAG

STRIPS = Layout(rows=32)
PACKED = Layout(rows=32, deflate=True)
TILES = Layout(tile=(32, 48), deflate=True)
MOST = 2**32 - 1
_BEFORE = b"II*\0"


def cases() -> Iterator[Case]:
    """All of this file."""
    yield from truncated()
    yield from headers()
    for tag, name, entry, outcome, layout in _fields():
        yield Case(name, tiff(PIXELS, layout, fields={tag: entry}), outcome)
    yield from directories()


def truncated() -> Iterator[Case]:
    """Directory first and last, cut at many offsets; every byte of the header among them."""
    for first in (True, False):
        whole = tiff(PIXELS, Layout(rows=32, deflate=True, ifd_first=first))
        at = "first" if first else "last"
        ends = [*range(1, 9), 10, 20, 60, 120, 200, 300, 400]
        ends += [len(whole) * share // 16 for share in range(1, 16)]
        ends += [len(whole) - back for back in (2, 3, 5, 50)]
        for end in sorted(set(ends)):
            yield Case(f"cut at {end}, directory {at}", whole[:end])
    yield Case("empty", b"", says="empty")


def headers() -> Iterator[Case]:
    """The first 16 bytes."""
    good = tiff(PIXELS, STRIPS)
    yield Case("byte order IM", b"IM" + good[2:])
    yield Case("byte order turned", b"MM" + good[2:])
    for version in (0, 41, 44, 65535):
        yield Case(f"version {version}", b"II" + struct.pack("<H", version) + good[4:])
    yield Case("version of BigTIFF", b"II\x2b\0" + good[4:])
    for at in (0, 1, 2, 7, len(good), len(good) - 1, 2**31, MOST):
        yield Case(f"directory at {at}", _BEFORE + struct.pack("<I", at) + good[8:])
    big = tiff(PIXELS, Layout(big=True))
    for name, head in (
        ("offsets of 4 bytes", struct.pack("<HHHQ", 43, 4, 0, 16)),
        ("offsets of 16 bytes", struct.pack("<HHHQ", 43, 16, 0, 16)),
        ("reserved 7", struct.pack("<HHHQ", 43, 8, 7, 16)),
        ("directory at 2^63", struct.pack("<HHHQ", 43, 8, 0, 2**63)),
        ("directory at 2^64 - 1", struct.pack("<HHHQ", 43, 8, 0, 2**64 - 1)),
    ):
        yield Case(f"BigTIFF, {name}", b"II" + head + big[16:])


def _fields() -> Iterator[_Row]:
    yield from _dimensions()
    yield from _samples()
    yield from _segments()
    yield from _others()


_Row = tuple[int, str, "tuple[int, object] | Raw | None", Outcome, Layout]


def _dimensions() -> Iterator[_Row]:
    for tag, name, size in ((WIDTH_TAG, "width", WIDTH), (HEIGHT_TAG, "height", HEIGHT)):
        for value in (0, size + 40, 100_000, 2**31 - 1, 2**31, MOST):
            yield tag, f"{name} {value}", (LONG, value), REFUSED, STRIPS
        yield tag, f"{name} missing", None, REFUSED, STRIPS
        yield tag, f"{name} as text", (ASCII, b"90\0"), REFUSED, STRIPS
        yield tag, f"{name} of no value", Raw(LONG, 0, 0), REFUSED, STRIPS
        yield tag, f"{name} of two values", (SHORT, (size, size)), REFUSED, STRIPS
        yield tag, f"{name} negative", (9, -size), REFUSED, STRIPS
        yield tag, f"{name} of an unknown type", Raw(77, 1, size), REFUSED, STRIPS
        yield tag, f"{name} of 2^32 - 1 values", Raw(LONG, MOST, 8), REFUSED, STRIPS
        yield tag, f"{name} as a fraction", (5, (size, 1)), REFUSED, STRIPS
    yield WIDTH_TAG, "width 1", (LONG, 1), AS_READ, STRIPS
    yield HEIGHT_TAG, "height 1", (LONG, 1), Right(PIXELS[:, :1]), STRIPS


def _samples() -> Iterator[_Row]:
    for bits in (0, 12, 16, 24, 32, 64, 128, 65535):
        yield BITS, f"{bits} bits", (SHORT, (bits,) * 3), REFUSED, STRIPS
    for bits in (1, 3, 4, 7):  # fewer than there are: a raster all the same
        yield BITS, f"{bits} bits", (SHORT, (bits,) * 3), AS_READ, STRIPS
    yield BITS, "bits of 8, 16 and 8", (SHORT, (8, 16, 8)), REFUSED, STRIPS
    yield BITS, "bits once", (SHORT, 8), SAME, STRIPS
    yield BITS, "bits of 1000 values", (SHORT, (8,) * 1000), SAME, STRIPS
    yield BITS, "bits beyond the file", Raw(SHORT, 3, MOST), REFUSED, STRIPS
    for samples in (0, 1, 2, 4, 1001, 65535):
        yield SAMPLES, f"{samples} samples", (SHORT, samples), REFUSED, STRIPS
    yield SAMPLES, "samples missing", None, REFUSED, STRIPS
    # White is 0 in the first band, GDAL says; the other two are nothing then.
    grey = np.repeat(255 - PIXELS[:1], 3, axis=0)
    yield PHOTOMETRIC, "photometric 0", (SHORT, 0), Right(grey), STRIPS
    for photometric in (1, 3, 4, 32803, 65535):
        yield PHOTOMETRIC, f"photometric {photometric}", (SHORT, photometric), SAME, STRIPS
    for photometric in (6, 8):  # YCbCr and CIELab, which GDAL turns into RGB
        yield PHOTOMETRIC, f"photometric {photometric}", (SHORT, photometric), AS_READ, STRIPS
    for photometric in (5, 9, 10, 32844, 32845):
        yield PHOTOMETRIC, f"photometric {photometric}", (SHORT, photometric), REFUSED, STRIPS
    yield PHOTOMETRIC, "photometric missing", None, SAME, STRIPS
    for kind in (4, 5, 6):  # bytes that mean nothing, or complex numbers of four bits
        yield SAMPLE_FORMAT, f"sample format {kind}", (SHORT, (kind,) * 3), SAME, STRIPS
    for kind in (0, 3, 99):
        yield SAMPLE_FORMAT, f"sample format {kind}", (SHORT, (kind,) * 3), REFUSED, STRIPS
    yield SAMPLE_FORMAT, "sample formats that differ", (SHORT, (1, 2, 3)), REFUSED, STRIPS
    yield EXTRA_SAMPLES, "extra samples 99", (SHORT, (99,)), REFUSED, STRIPS
    yield EXTRA_SAMPLES, "five extra samples", (SHORT, (0,) * 5), REFUSED, STRIPS
    for planar in (0, 2, 3, 65535):
        yield PLANAR, f"planar {planar}", (SHORT, planar), REFUSED, STRIPS
    for predictor in (0, 3, 99):
        yield PREDICTOR, f"predictor {predictor}", (SHORT, predictor), REFUSED, PACKED
    yield PREDICTOR, "predictor without compression", (SHORT, 2), SAME, STRIPS
    reversed_bits = np.packbits(np.unpackbits(PIXELS[..., None], axis=-1)[..., ::-1], axis=-1)
    yield 266, "bits from right to left", (SHORT, 2), Right(reversed_bits[..., 0]), STRIPS


def _segments() -> Iterator[_Row]:
    for code in (0, 2, 3, 4, 5, 6, 7, 8, 34712, 34887, 34925, 50000, 50001, 50002, 65535):
        yield COMPRESSION, f"compression {code}", (SHORT, code), REFUSED, STRIPS
    # Bytes can be read as runs, and runs as bytes, and nothing says that they are not.
    yield COMPRESSION, "compression 32773", (SHORT, 32773), AS_READ, STRIPS
    yield COMPRESSION, "compression missing", None, SAME, STRIPS
    yield COMPRESSION, "none, though it is deflate", (SHORT, 1), AS_READ, PACKED
    for rows, outcome in ((0, REFUSED), (1, REFUSED), (31, REFUSED), (33, AS_READ)):
        yield ROWS_PER_STRIP, f"{rows} rows a strip", (LONG, rows), outcome, STRIPS
    for name, entry in (
        ("missing", None),
        ("of no value", Raw(LONG, 0, 0)),
        ("beyond the file", (LONG, (10**6,) * 3)),
        ("2^32 - 1", (LONG, (MOST,) * 3)),
        ("of one value", (LONG, 8)),
        ("of 2^32 - 1 values", Raw(LONG, MOST, 8)),
        ("of a million values, which the file lacks", Raw(LONG, 10**6, 8)),
        ("in a list beyond the file", Raw(LONG, 3, MOST)),
        ("as text", (ASCII, b"ab\0")),
        ("negative", (9, (-8, -8, -8))),
    ):
        yield STRIP_OFFSETS, f"strip offsets {name}", entry, REFUSED, STRIPS
    for name, entry, outcome in (
        ("missing", None, REFUSED),
        ("1", (LONG, (1,) * 3), SAME),  # libtiff knows better
        ("2^32 - 1", (LONG, (MOST,) * 3), SAME),
        ("of one value", (LONG, 8640), REFUSED),
        ("of 2^32 - 1 values", Raw(LONG, MOST, 8), REFUSED),
        ("one too small", (LONG, (8640, 8639, 1620)), SAME),
        ("one too large", (LONG, (8640, 8641, 1620)), SAME),
    ):
        yield STRIP_COUNTS, f"strip sizes {name}", entry, outcome, STRIPS
    for tag, name in ((TILE_WIDTH, "tile width"), (TILE_LENGTH, "tile height")):
        for value in (0, 1, 16, 2**20, 2**31, MOST):
            yield tag, f"{name} {value}", (LONG, value), REFUSED, TILES
        yield tag, f"{name} missing", None, REFUSED, TILES
    yield TILE_OFFSETS, "tile offsets missing", None, REFUSED, TILES
    yield TILE_OFFSETS, "tile offsets beyond the file", (LONG, (10**8,) * 6), REFUSED, TILES
    yield TILE_COUNTS, "tile sizes half", (LONG, (900,) * 6), REFUSED, TILES
    yield JPEG_TABLES, "tables of a JPEG that is none", (7, b"\xff\xd8garbage"), SAME, STRIPS


def _others() -> Iterator[_Row]:
    for name, text, outcome in (
        ("text", b"abc\0", AS_READ),
        ("nan", b"nan\0", SAME),
        ("1e999", b"1e999\0", SAME),
        ("-7", b"-7\0", SAME),
        ("of 100,000 digits", b"9" * 100_000 + b"\0", SAME),
        ("of bytes that are no text", b"\xff\xfe\x80\0", AS_READ),
        ("without an end", b"0" * 40, AS_READ),
    ):
        yield GDAL_NODATA, f"nodata {name}", (ASCII, text), outcome, STRIPS
    laughs = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
    )
    for name, text, outcome in (
        ("broken", b"<GDALMetadata><Item", SAME),
        ("no XML", b"\0\1\2\3", SAME),
        ("nested 100,000 deep", b"<a>" * 100_000, SAME),
        ("that laughs", laughs + b"]><GDALMetadata>&j;</GDALMetadata>", SAME),
        (
            "of 100,000 items",
            b"<GDALMetadata>"
            + b"".join(b'<Item name="k%d">v</Item>' % n for n in range(100_000))
            + b"</GDALMetadata>",
            REFUSED,
        ),
        (
            "that names overviews",
            b'<GDALMetadata><Item name="OVERVIEW_FILE" domain="OVERVIEWS">canary.tif</Item>'
            b"</GDALMetadata>",
            REFUSED,
        ),
        (
            "with scale and offset beyond numbers",
            b'<GDALMetadata><Item name="SCALE" sample="0" role="scale">nan</Item>'
            b'<Item name="OFFSET" sample="0" role="offset">1e999</Item></GDALMetadata>',
            SAME,
        ),
    ):
        yield GDAL_METADATA, f"metadata {name}", (ASCII, text + b"\0"), outcome, STRIPS
    for name, keys in (
        ("of version 9", (9, 9, 9, 3, 1024, 0, 1, 1)),
        ("that promise 1000", (1, 1, 0, 1000, 1024, 0, 1, 1)),
        ("cut short", (1, 1, 0)),
        ("of code 65535", (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 65535)),
        ("of the user, undefined", (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32767)),
        ("of no known kind", (1, 1, 0, 2, 1024, 0, 1, 999, 3072, 0, 1, 32618)),
        ("in doubles that are not there", (1, 1, 0, 2, 1024, 0, 1, 1, 2057, 34736, 1, 9)),
        ("in text that is not there", (1, 1, 0, 2, 1024, 0, 1, 1, 3073, 34737, 900, 9)),
        ("geocentric", (1, 1, 0, 2, 1024, 0, 1, 3, 2048, 0, 1, 4978)),
    ):
        yield GEO_KEYS, f"geo keys {name}", (SHORT, keys), SAME, STRIPS
    yield GEO_ASCII, "geo text that is no text", (ASCII, b"\xff\xfe|" * 50), SAME, STRIPS
    for flag in (1, 2, 4, 7, MOST):
        yield NEW_SUBFILE, f"subfile flag {flag}", (LONG, flag), SAME, STRIPS
    for orientation in (2, 5, 8, 99):
        # Georeferenced rasters are stored from the corner that their transform says.
        yield 274, f"orientation {orientation}", (SHORT, orientation), SAME, STRIPS
    yield 60000, "an unknown tag beyond the file", Raw(LONG, MOST, MOST), SAME, STRIPS
    yield 50844, "RPCs that are no numbers", (12, (float("nan"),) * 92), SAME, STRIPS


def directories() -> Iterator[Case]:
    """Chains, loops and lists of directories, and entries in no order."""
    base = {"layout": STRIPS}
    yield Case("directory that follows itself", tiff(PIXELS, next_ifd=-1, **base), SAME)
    yield Case("directory followed by the header", tiff(PIXELS, next_ifd=2, **base))
    yield Case("directory followed by nothing", tiff(PIXELS, next_ifd=MOST, **base))
    loop: Fields = {SUB_IFDS: (LONG, (8, 8, 8))}
    yield Case("subdirectories amid pixels", tiff(PIXELS, STRIPS, fields=loop), SAME)
    itself = tiff(PIXELS, STRIPS)
    at = struct.unpack("<I", itself[4:8])[0]
    loop = {SUB_IFDS: (LONG, (at,) * 3)}
    yield Case("subdirectories that are the directory", tiff(PIXELS, STRIPS, fields=loop), SAME)
    many: Fields = {30000 + n: (SHORT, 1) for n in range(20000)}
    yield Case("20,000 unknown tags", late(lambda: tiff(PIXELS, STRIPS, fields=many)))
    yield Case("no tag at all", header(8) + b"\0\0" + b"\0\0\0\0" + bytes(500))
    yield Case("65,535 tags promised", header(8) + b"\xff\xff" + bytes(500))
    count = struct.unpack("<H", itself[at : at + 2])[0]
    rows = [itself[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    behind = itself[at + 2 + 12 * count :]
    turned = itself[: at + 2] + b"".join(reversed(rows)) + behind
    yield Case("tags from last to first", turned, SAME)
    twice = itself[: at + 2] + b"".join([rows[0], *rows[:-1]]) + behind
    yield Case("width twice, and no geo keys", twice, SAME)
    ghost = tiff(PIXELS, Layout(big=True), fields={STRIP_COUNTS: (LONG8, (2**63,) * 3)})
    yield Case("BigTIFF, strips of 2^63 bytes", ghost, SAME)
    far = tiff(PIXELS, Layout(big=True), fields={STRIP_OFFSETS: (LONG8, (2**63,) * 3)})
    yield Case("BigTIFF, strips at 2^63", far, REFUSED)
    wrong = [zlib.compress(bytes(10)), b"", b"\0" * 40]
    yield Case("deflate that is short, empty, or none", tiff(PIXELS, PACKED, segments=wrong))
    checksum = [part[:-1] + bytes([part[-1] ^ 1]) for part in _packed()]
    yield Case("deflate with a wrong checksum", tiff(PIXELS, PACKED, segments=checksum))


def _packed() -> list[bytes]:
    parts = [PIXELS[:, row : row + 32] for row in range(0, HEIGHT, 32)]
    return [zlib.compress(np.moveaxis(part, 0, 2).tobytes()) for part in parts]
