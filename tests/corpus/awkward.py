"""Rasters that are as the format allows, and seldom seen: types, values, places, layouts."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.conftest import noise, write_raster
from tests.corpus.case import HEIGHT, PIXELS, REFUSED, SAME, WIDTH, Case, Place, Right
from tests.corpus.tiff import (
    DOUBLE,
    GEO_KEYS,
    MATRIX,
    PIXEL_SCALE,
    SHORT,
    TIEPOINT,
    TILE_COUNTS,
    TILE_OFFSETS,
    Fields,
    Layout,
    tiff,
)

LONG = 4
NAN = math.nan


def cases() -> Iterator[Case]:
    """All of this file."""
    yield from types()
    yield from values()
    yield from masks()
    yield from places()
    yield from layouts()
    yield from bands()
    yield from other_formats()


def written(pixels: NDArray[Any], **kw: Any) -> Callable[[Place], None]:
    """Writes them with GDAL."""
    return lambda place: _write(place, pixels, kw)


def _write(place: Place, pixels: NDArray[Any], kw: dict[str, Any]) -> None:
    write_raster(place.folder / "scene.tif", pixels, **kw)


def scaled(pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Right:
    """What the pages promise: 2nd and 98th percentile of all valid values become 0 and 255."""
    real = pixels.astype(np.float64)
    known = np.isfinite(real).all(0) if valid is None else valid
    low, high = np.percentile(real[:, known], (2, 98)) / 2  # halves, which cannot overflow
    with np.errstate(over="ignore"):  # what was infinite is 255
        shares = (np.nan_to_num(real) / 2 - low) / (high - low) * 255
    levels = np.clip(np.round(shares), 0, 255)
    return Right(levels, None if known.all() else known, tolerance=1)


def types() -> Iterator[Case]:
    """All types of numbers."""
    for dtype in (
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float32",
        "float64",
    ):
        kind = np.dtype(dtype)
        wide = PIXELS.astype(np.float64) * 100
        pixels = (PIXELS // 2 if dtype == "int8" else wide).astype(kind)
        yield Case(f"{dtype}", tiff(pixels), scaled(pixels))
        yield Case(f"{dtype}, big-endian", tiff(pixels, Layout(order=">")), scaled(pixels))
    for kind, name in (("c8", "complex64"), ("c16", "complex128")):
        yield Case(name, tiff(PIXELS.astype(kind)), REFUSED, "complex")
    shorts = np.stack([PIXELS.astype("<i2")] * 2, axis=-1).view("<i4")[..., 0]
    yield Case("complex of integers", tiff(shorts, fields={339: (SHORT, (5,) * 3)}), says="complex")
    half = tiff(PIXELS.astype("<f2"))
    yield Case("float16", half, scaled(PIXELS.astype(np.float32)))
    yield Case("float24", tiff(PIXELS, fields={258: (SHORT, (24,) * 3), 339: (SHORT, (3,) * 3)}))


def values() -> Iterator[Case]:
    """Numbers that are none, and numbers without end."""
    real = PIXELS.astype(np.float32)
    for value in (NAN, math.inf, -math.inf):
        pixels = real.copy()
        pixels[1, 5:30, 7:60] = value
        yield Case(f"a hole of {value}", tiff(pixels), scaled(pixels))
        nothing = np.full_like(real, value)
        none = Right(PIXELS, np.zeros((HEIGHT, WIDTH), bool), tolerance=255)
        yield Case(f"nothing but {value}", tiff(nothing), none)
    checks = real.copy()
    checks[:, ::2, ::2] = NAN
    yield Case("NaN at every second pixel", tiff(checks), scaled(checks))
    for most in (3e38, 1e-40, 1e300, 1.7e308, 1e-310):
        kind = np.float32 if 1e-45 < most < 1e39 else np.float64
        pixels = (PIXELS.astype(np.float64) / 255 * most).astype(kind)
        yield Case(f"values up to {most}", tiff(pixels), scaled(pixels.astype(np.float64)))
    flat = np.full((3, HEIGHT, WIDTH), 7.5, np.float32)
    yield Case("one value of floats", tiff(flat), Right(np.full_like(PIXELS, 128), tolerance=1))
    ends = np.zeros((3, HEIGHT, WIDTH), np.int64)
    ends[:, ::2], ends[:, 1::2] = 2**63 - 1, -(2**63)
    yield Case("both ends of int64", tiff(ends), scaled(ends))


def masks() -> Iterator[Case]:
    """Masks, nodata and alpha, of which nothing or everything is valid."""
    nothing, everything = np.zeros((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)
    one = nothing.copy()
    one[33, 44] = True
    for name, mask in (("no pixel", nothing), ("one pixel", one), ("every pixel", everything)):
        yield Case(f"mask of {name}", written(PIXELS, mask=mask), Right(PIXELS, mask))
        alpha = np.concatenate([PIXELS, 255 * mask[None].astype(np.uint8)])
        make = written(alpha, photometric="RGB", alpha="YES")
        yield Case(f"alpha of {name}", make, Right(PIXELS, mask))
        pixels = np.where(mask, np.maximum(PIXELS, 1), 0).astype(np.uint8)
        yield Case(f"nodata but {name}", written(pixels, nodata=0), Right(pixels, mask))
    yield Case("nodata nan in bytes", tiff(PIXELS, fields={42113: (2, b"nan\0")}), SAME)
    real = PIXELS.astype(np.float32)
    real[0, :10] = -9999
    right = scaled(real, real[0] != -9999)
    yield Case("nodata -9999 in floats", written(real, nodata=-9999), right)


def places() -> Iterator[Case]:
    """Transforms and references that place a raster nowhere, or anywhere."""
    matrices: dict[str, tuple[float, ...]] = {
        "of zeros": (0,) * 16,
        "that is flat": (1, 1, 0, 5e5, 1, 1, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "of a line": (1, 0, 0, 5e5, 0, 0, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "with NaN": (1, NAN, 0, 5e5, 0, -1, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "with infinity": (math.inf, 0, 0, 5e5, 0, -1, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "at infinity": (1, 0, 0, math.inf, 0, -1, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "turned": (0.4, 0.3, 0, 5e5, 0.3, -0.4, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "sheared": (0.5, 0.2, 0, 5e5, 0, -0.5, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "mirrored": (-0.5, 0, 0, 5e5, 0, 0.5, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1),
        "of 15 numbers": (1,) * 15,
    }
    nowhere: Fields = {PIXEL_SCALE: None, TIEPOINT: None}
    singular = ("of zeros", "that is flat", "of a line", "with NaN", "with infinity", "at infinity")
    for name, matrix in matrices.items():
        outcome = REFUSED if name in singular else SAME
        fields = nowhere | {MATRIX: (DOUBLE, tuple(map(float, matrix)))}
        yield Case(f"matrix {name}", tiff(PIXELS, fields=fields), outcome)
    for name, scale, outcome in (
        ("zero", (0.0, 0.0, 0.0), REFUSED),
        ("NaN", (NAN, NAN, 0.0), REFUSED),
        ("infinite", (math.inf, math.inf, 0.0), REFUSED),
        ("of two numbers", (1.0, 1.0), SAME),
        ("negative", (-0.5, -0.5, 0.0), SAME),
        ("1e-300", (1e-300, 1e-300, 0.0), REFUSED),
        ("1e300", (1e300, 1e300, 0.0), SAME),
        ("1e9", (1e9, 1e9, 0.0), SAME),
    ):
        yield Case(f"scale {name}", tiff(PIXELS, fields={PIXEL_SCALE: (DOUBLE, scale)}), outcome)
    for name, tie, outcome in (
        ("NaN", (0.0, 0.0, 0.0, NAN, NAN, 0.0), REFUSED),
        ("of five numbers", (0.0,) * 5, SAME),
        ("1e308", (0.0, 0.0, 0.0, 1e308, -1e308, 0.0), SAME),
        ("of the same point four times", (0.0, 0.0, 0.0, 5e5, 4e6, 0.0) * 4, SAME),
    ):
        yield Case(f"tie point {name}", tiff(PIXELS, fields={TIEPOINT: (DOUBLE, tie)}), outcome)
    gcps = (
        0.0,
        0.0,
        0.0,
        NAN,
        NAN,
        0.0,
        90.0,
        0.0,
        0.0,
        1.0,
        1.0,
        0.0,
        0.0,
        70.0,
        0.0,
        2.0,
        2.0,
        0.0,
    )
    yield Case("control points that are no numbers",
               tiff(PIXELS, fields={PIXEL_SCALE: None, TIEPOINT: (DOUBLE, gcps)}))  # fmt: skip
    one = (5.0, 5.0, 0.0, 5e5, 4e6, 0.0) * 4
    yield Case("control points that are one",
               tiff(PIXELS, fields={PIXEL_SCALE: None, TIEPOINT: (DOUBLE, one)}))  # fmt: skip
    yield Case("no CRS", tiff(PIXELS, fields={GEO_KEYS: None}), SAME)
    yield Case("no georeferencing", tiff(PIXELS, geo=False), SAME)
    degrees = (1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326)
    polar: Fields = {GEO_KEYS: (SHORT, degrees)}
    yield Case("degrees beyond the poles", tiff(PIXELS, fields=polar), SAME)
    for name, crs, outcome in (
        ("empty PROJ", 'PROJCS["",GEOGCS[""]]', REFUSED),
        ("words", "not a CRS", SAME),
        ("brackets", "[" * 5000, SAME),
    ):
        yield Case(f"sidecar whose CRS is {name}", _aux(f"<SRS>{crs}</SRS>"), outcome)
    yield Case("sidecar whose transform is words", _aux("<GeoTransform>a,b,c</GeoTransform>"), SAME)
    zeros = "<GeoTransform>0,0,0,0,0,0</GeoTransform>"
    yield Case("sidecar whose transform is zeros", _aux(zeros), REFUSED)


def _aux(content: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (place.folder / "scene.tif").write_bytes(tiff(PIXELS))
        text = f"<PAMDataset>{content}</PAMDataset>"
        (place.folder / "scene.tif.aux.xml").write_text(text)

    return make


def layouts() -> Iterator[Case]:
    """Byte orders, BigTIFF, tiles of all sizes, sparse ones, strips of one row and of all."""
    for order in "<>":
        for big in (False, True):
            name = f"{'big' if order == '>' else 'little'}-endian {'BigTIFF' if big else 'TIFF'}"
            layout = Layout(order=order, big=big, deflate=True, predictor=2, tile=(48, 16))
            yield Case(name, tiff(PIXELS, layout), SAME)
    for rows, cols in ((16, 16), (16, 1600), (1600, 16), (1024, 1024), (80, 96)):
        yield Case(f"tiles of {rows} x {cols}", tiff(PIXELS, Layout(tile=(rows, cols))), SAME)
    for rows, cols in ((17, 33), (1, 1), (70, 90), (15, 16)):
        # Not multiples of 16, which TIFF asks for and libtiff reads all the same.
        yield Case(f"tiles of {rows} x {cols}", tiff(PIXELS, Layout(tile=(rows, cols))), SAME)
    for rows in (1, 7, 70, 1000):
        yield Case(f"strips of {rows} rows", tiff(PIXELS, Layout(rows=rows)), SAME)
    yield Case("bands apart", tiff(PIXELS, Layout(planar=True, deflate=True)), SAME)
    black = Right(np.zeros_like(PIXELS))
    holes: Fields = {TILE_OFFSETS: (LONG, (0,) * 6), TILE_COUNTS: (LONG, (0,) * 6)}
    tiled = Layout(tile=(32, 48))
    yield Case("sparse, without a tile", tiff(PIXELS, tiled, fields=holes), black)
    part = PIXELS.copy()
    part[:, :32, :48] = 0
    sizes = (0, *(32 * 48 * 3,) * 5)
    places = (0, *(8 + 32 * 48 * 3 * n for n in range(1, 6)))
    some: Fields = {TILE_OFFSETS: (LONG, places), TILE_COUNTS: (LONG, sizes)}
    yield Case("sparse, without the first tile", tiff(PIXELS, tiled, fields=some), Right(part))
    yield Case(
        "behind the file 1 MB of noise", tiff(PIXELS) + bytes(noise(1000, 1000, bands=1)), SAME
    )
    for height, width in ((1, 1), (1, 5000), (5000, 1), (2, 2), (257, 31)):
        pixels = noise(height, width)
        yield Case(f"{height} x {width} px", tiff(pixels), Right(pixels))
    pages = tiff(PIXELS, Layout(ifd_first=True))
    at = len(pages)
    first = tiff(PIXELS, Layout(ifd_first=True), next_ifd=at)
    second = _moved(tiff(np.zeros((1, 5, 5), np.uint8), Layout(ifd_first=True)), at)
    yield Case("a second page of another kind", first + second, SAME)


def _moved(whole: bytes, at: int) -> bytes:
    """A little-endian TIFF's directory and pixels for offset ``at`` of another file."""
    count = struct.unpack("<H", whole[8:10])[0]
    table = bytearray(whole[8:])
    for n in range(count):
        tag, kind, items = struct.unpack("<HHI", table[2 + 12 * n : 10 + 12 * n])
        size = {3: 2, 4: 4, 12: 8}[kind] * items
        if size > 4 or tag == 273:
            place = 10 + 12 * n
            value = struct.unpack("<I", table[place : place + 4])[0]
            table[place : place + 4] = struct.pack("<I", value + at - 8)
    return bytes(table)


def bands() -> Iterator[Case]:
    """None, one, two, four, 65 and 1001 bands, with and without a choice."""
    for count in (1, 2):
        grey = noise(HEIGHT, WIDTH, bands=count)
        yield Case(f"{count} band(s)", tiff(grey), REFUSED, "--bidx 1,1,1")
        wanted = Right(np.repeat(grey[:1], 3, axis=0))
        yield Case(f"{count} band(s), chosen", tiff(grey), wanted, options=("--bidx", "1,1,1"))
    for count in (4, 65):
        many = noise(HEIGHT, WIDTH, bands=count)
        yield Case(f"{count} bands", tiff(many), Right(many[:3]))
        last = ",".join(str(count - n) for n in range(3))
        wanted = Right(many[[count - 1, count - 2, count - 3]])
        yield Case(f"{count} bands, the last", tiff(many), wanted, options=("--bidx", last))
        beyond = f"1,2,{count + 1}"
        yield Case(
            f"{count} bands, one beyond", tiff(many), says="asks for", options=("--bidx", beyond)
        )
    yield Case("1001 bands", tiff(noise(20, 20, bands=1001)), REFUSED, "1001 bands")
    indexes = noise(HEIGHT, WIDTH, bands=1)
    colours = np.random.default_rng(3).integers(0, 256, (3, 256))
    palette: Fields = {262: (SHORT, 3), 320: (SHORT, tuple(map(int, (colours * 257).ravel())))}
    shown = Right(colours[:, indexes[0]])
    yield Case("palette", tiff(indexes, fields=palette), shown)
    short: Fields = palette | {320: (SHORT, (0,) * 30)}
    yield Case("palette of ten colours for bytes", tiff(indexes, fields=short), REFUSED)
    yield Case("palette without colours", tiff(indexes, fields={262: (SHORT, 3)}), REFUSED)


def other_formats() -> Iterator[Case]:
    """PNG, JPEG and JPEG 2000, under the name of a TIFF; whole, and cut short."""
    for driver, exact in (("PNG", True), ("JPEG", False), ("JP2OpenJPEG", True)):
        kw: dict[str, Any] = {"driver": driver}
        if driver == "JP2OpenJPEG":
            kw |= {"QUALITY": "100", "REVERSIBLE": "YES"}
        right = Right(SMOOTH, tolerance=0 if exact else 20)
        yield Case(f"a {driver} named .tif", written(SMOOTH, **kw), right)
        for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.99):
            yield Case(f"a {driver}, {share:.0%} of it", _cut(SMOOTH, kw, share))


def _smooth() -> NDArray[np.uint8]:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    waves = [110 + 90 * np.sin(rows / (9 + b)) * np.cos(cols / (7 + b)) for b in range(3)]
    return np.stack(waves).astype(np.uint8)


SMOOTH = _smooth()


def _cut(pixels: NDArray[Any], kw: dict[str, Any], share: float) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        path = write_raster(place.folder / "scene.tif", pixels, **kw)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        for beside in place.folder.glob("*.aux.xml"):
            beside.unlink()

    return make
