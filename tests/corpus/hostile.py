"""Rasters made to harm: bombs, disguises, and sidecars that reach for other files and servers."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import write_raster
from tests.corpus.awkward import SMOOTH, written
from tests.corpus.case import (
    AS_READ,
    HEIGHT,
    PIXELS,
    REFUSED,
    SAME,
    WIDTH,
    Case,
    Outcome,
    Place,
    Right,
    late,
)
from tests.corpus.tiff import (
    BITS,
    COMPRESSION,
    LONG,
    NEW_SUBFILE,
    SHORT,
    TILE_COUNTS,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    Fields,
    Layout,
    ifd,
    tiff,
)
from tests.corpus.tiff import HEIGHT as HEIGHT_TAG
from tests.corpus.tiff import WIDTH as WIDTH_TAG

MIB = 2**20
VRT = ("--allow-driver", "VRT")


def cases() -> Iterator[Case]:
    """All of this file."""
    yield from sizes()
    yield from deflated()
    yield from chains()
    yield from pictures()
    yield from disguises()
    yield from allowed_vrts()
    yield from sidecars()
    yield from no_files()


def sizes() -> Iterator[Case]:
    """Small files that claim to be vast."""
    for side, tile in ((200_000, 4096), (200_000, 512), (2_000_000, 8192), (2**31 - 1, 16384)):
        yield Case(f"{side} px a side in tiles of {tile}", vast(side, tile), REFUSED)
    yield Case("one tile of 60,000 px a side", vast(60_000, 60_000 // 16 * 16 + 16), REFUSED)
    yield Case("a tile of 2^31 px a side", vast(1000, 2**31), REFUSED)
    strips: Fields = {WIDTH_TAG: (LONG, 100_000), HEIGHT_TAG: (LONG, 100_000)}
    one = {273: (LONG, 8), 278: (LONG, 100_000), 279: (LONG, 4000)}
    deflate = Layout(deflate=True)
    yield Case("one strip of 28 GiB", tiff(PIXELS, deflate, fields=strips | one), REFUSED)
    part = ("--bounds", "583000,4506990,583040,4507000")
    black = Right(np.zeros((3, 20, 80), np.uint8))
    yield Case("10 px of a sparse 30,000", vast(30_000, 512), black, options=part)


def vast(side: int, tile: int) -> bytes:
    """A TIFF whose tiles, hundreds of millions maybe, all are one and the same of 100 bytes."""
    tiles = min(math.ceil(side / tile) ** 2, 10_000)
    fields: Fields = {
        WIDTH_TAG: (LONG, side),
        HEIGHT_TAG: (LONG, side),
        TILE_WIDTH: (LONG, tile),
        TILE_LENGTH: (LONG, tile),
        TILE_OFFSETS: (LONG, (0,) * tiles),
        TILE_COUNTS: (LONG, (0,) * tiles),
    }
    return tiff(PIXELS, Layout(tile=(16, 16), deflate=True), fields=fields)


def deflated() -> Iterator[Case]:
    """Streams that unpack to far more than a tile."""
    tile = np.moveaxis(np.pad(PIXELS, ((0, 0), (0, 10), (0, 6))), 0, 2).tobytes()
    layout = Layout(tile=(80, 96), deflate=True)

    def bomb() -> bytes:
        packer = zlib.compressobj(9)
        parts = [packer.compress(tile), packer.compress(bytes(512 * MIB)), packer.flush()]
        return tiff(PIXELS, layout, segments=[b"".join(parts)])

    yield Case("a tile with 512 MiB of zeros behind", late(bomb), SAME)
    black = zlib.compress(bytes(2048 * 2048 * 3), 9)
    fields: Fields = {WIDTH_TAG: (LONG, 2000), HEIGHT_TAG: (LONG, 2000)}
    one = tiff(PIXELS, Layout(tile=(2048, 2048), deflate=True), segments=[black], fields=fields)
    yield Case("12 MiB of black in 12 KiB", one, Right(np.zeros((3, 2000, 2000), np.uint8)))
    lzma = Layout(tile=(80, 96))
    yield Case("LZMA that is none", tiff(PIXELS, lzma, fields={COMPRESSION: (SHORT, 34925)}))
    yield Case("LERC that is none", tiff(PIXELS, lzma, fields={COMPRESSION: (SHORT, 34887)}))


def chains() -> Iterator[Case]:
    """Overviews and masks without end, or each a bomb."""
    small: Fields = {NEW_SUBFILE: (LONG, 1)}
    yield Case("900 overviews", late(lambda: _chain(900, small)), SAME)
    yield Case("30,000 overviews", late(lambda: _chain(30_000, small)), REFUSED, "directories")
    huge: Fields = {
        WIDTH_TAG: (LONG, 2**16),
        HEIGHT_TAG: (LONG, 2**16),
        TILE_WIDTH: (LONG, 2**16),
        TILE_LENGTH: (LONG, 2**16),
    }
    yield Case("an overview of one huge tile", _chain(1, {NEW_SUBFILE: (LONG, 1)} | huge))
    one_bit: Fields = {BITS: (SHORT, 1), NEW_SUBFILE: (LONG, 4)}
    sides: Fields = {WIDTH_TAG: (LONG, WIDTH), HEIGHT_TAG: (LONG, HEIGHT)}
    yield Case("a mask of one huge tile", _chain(1, huge | one_bit | sides))
    larger: Fields = {NEW_SUBFILE: (LONG, 1), WIDTH_TAG: (LONG, 10**6), HEIGHT_TAG: (LONG, 10**6)}
    yield Case("an overview larger than the raster", _chain(1, larger))


def _chain(count: int, fields: Fields) -> bytes:
    """PIXELS, and ``count`` more directories, each of one grey tile of 16 px."""
    base: Fields = {
        NEW_SUBFILE: (LONG, 1), WIDTH_TAG: (LONG, 16), HEIGHT_TAG: (LONG, 16), BITS: (SHORT, 8),
        COMPRESSION: (SHORT, 1), 262: (SHORT, 1), 277: (SHORT, 1), TILE_WIDTH: (LONG, 16),
        TILE_LENGTH: (LONG, 16), TILE_OFFSETS: (LONG, 8), TILE_COUNTS: (LONG, 256),
    }  # fmt: skip
    body = tiff(PIXELS, Layout(ifd_first=True))
    whole = bytearray(tiff(PIXELS, Layout(ifd_first=True), next_ifd=len(body)))
    for n in range(count):
        at = len(whole)
        length = len(ifd(base | fields, at))
        following = 0 if n == count - 1 else at + length
        whole += ifd(base | fields, at, following=following)
    return bytes(whole)


def pictures() -> Iterator[Case]:
    """PNG, JPEG and JPEG 2000 with lying sizes, and bombs in their chunks."""
    for side, how in ((30_000, 0), (30_000, 1), (2**31 - 1, 0), (0, 0)):
        name = f"PNG of {side} px a side{', interlaced' if how else ''}"
        yield Case(name, png(side, side, interlaced=how))
    comment = late(lambda: _bomb(b"zTXt", b"Comment", b"comment"))
    yield Case("PNG with a comment of 256 MiB", comment, SAME)
    yield Case("PNG with a profile of 256 MiB", late(lambda: _bomb(b"iCCP", b"icc")), SAME)
    whole = png(WIDTH, HEIGHT, rows=PIXELS)
    yield Case("PNG with a wrong checksum", whole[:60] + bytes([whole[60] ^ 8]) + whole[61:])
    for progressive in (False, True):
        jpeg = _jpeg(progressive)
        name = "progressive JPEG" if progressive else "JPEG"
        for side in (0, 30_000, 65_500):
            yield Case(f"{name} of {side} px a side", _resized(jpeg, side))
        yield Case(f"{name}, nothing but its header", jpeg[:200])
    many = struct.pack(">HH", 0xFFDA, 12) + bytes([3, 1, 0, 2, 17, 3, 17, 0, 63, 0])
    yield Case("JPEG of 5,000 scans", _jpeg(True)[:-2] + many * 5000 + b"\xff\xd9")
    for at, name in ((8, "image"), (24, "tile")):
        for value in (0, 1, 2**31, 2**32 - 1):
            # The width of the code stream counts, not that of the box around it.
            outcome = AS_READ if (name, value) == ("image", 1) else REFUSED
            yield Case(f"JPEG 2000 whose {name} is {value} px wide", _jp2(at, value), outcome)


def png(
    width: int,
    height: int,
    *,
    interlaced: int = 0,
    extra: bytes = b"",
    rows: NDArray[np.uint8] | None = None,
) -> bytes:
    """A PNG; without rows its data are 1000 zeros."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    lines = b"" if rows is None else np.moveaxis(rows, 0, 2)
    data = b"".join(b"\0" + line.tobytes() for line in lines) if len(lines) else bytes(1000)
    chunks = _chunk(b"IHDR", head) + extra + _chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunks + _chunk(b"IEND", b"")


def _bomb(kind: bytes, name: bytes, start: bytes = b"") -> bytes:
    """A PNG with a chunk of that name, which unpacks to 256 MiB of zeros after its start."""
    data = name + b"\0\0" + zlib.compress(start + bytes(256 * MIB), 9)
    return png(WIDTH, HEIGHT, extra=_chunk(kind, data), rows=PIXELS)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _jpeg(progressive: bool) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.moveaxis(SMOOTH, 0, 2)).save(stream, "JPEG", progressive=progressive)
    return stream.getvalue()


def _resized(jpeg: bytes, side: int) -> bytes:
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :]


def _jp2(at: int, value: int) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        path = write_raster(place.folder / "scene.tif", SMOOTH, driver="JP2OpenJPEG")
        whole = bytearray(path.read_bytes())
        field = whole.index(b"\xff\x51") + at - 2
        whole[field : field + 4] = struct.pack(">I", value)
        path.write_bytes(whole)
        for beside in place.folder.glob("*.aux.xml"):
            beside.unlink()

    return make


def vrt(source: str, kind: str = "", inner: str = "") -> str:
    """A VRT of three bands, each the first of another file or URL."""
    band = (
        f'<VRTRasterBand dataType="Byte" band="{{}}"{kind}>{inner}<SimpleSource><SourceFilename '
        f'relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
    )
    bands = "".join(band.format(n) for n in (1, 2, 3))
    return f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>'


def python_vrt(place: Place) -> str:
    """A VRT whose pixels a Python function makes, which leaves a file behind."""
    code = f"import pathlib\ndef f(*a, **k):\n    pathlib.Path('{place.ran}').touch()\n"
    inner = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python"
        f"</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>"
    )
    return vrt(str(place.canary_raster), ' subClass="VRTDerivedRasterBand"', inner)


def _own_python(place: Place) -> None:
    own = write_raster(place.folder / "own.tif", PIXELS)
    (place.folder / "scene.tif").write_text(python_vrt(replace(place, canary_raster=own)))


def _raw_vrt(place: Place) -> str:
    raw = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}" subClass="VRTRawRasterBand"><SourceFilename '
        f'relativeToVRT="0">{place.canary}</SourceFilename><ImageOffset>0</ImageOffset>'
        "<PixelOffset>1</PixelOffset><LineOffset>0</LineOffset></VRTRasterBand>"
        for n in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="10" rasterYSize="1">{raw}</VRTDataset>'


def _warped_vrt(place: Place) -> str:
    return (
        '<VRTDataset rasterXSize="90" rasterYSize="70" subClass="VRTWarpedDataset">'
        f"<GDALWarpOptions><SourceDataset>{place.canary_raster}</SourceDataset></GDALWarpOptions>"
        "</VRTDataset>"
    )


_DISGUISES: dict[str, Callable[[Place], str | bytes]] = {
    "a file": lambda place: vrt(str(place.canary_raster)),
    "a server": lambda place: vrt(f"/vsicurl/{place.url}/a.tif"),
    "a server, plainly": lambda place: vrt(f"{place.url}/a.tif"),
    "a bucket": lambda place: vrt("/vsis3/bucket/a.tif"),
    "an archive": lambda place: vrt(f"/vsizip/{place.canary}/a.tif"),
    "raw bytes of a file": _raw_vrt,
    "a warped file": _warped_vrt,
    "Python": python_vrt,
}
_LEADS: dict[str, bytes] = {
    "": b"",
    ", behind blanks": b" \n\t ",
    ", behind a byte order mark": b"\xef\xbb\xbf",
    ", behind an XML declaration": b'<?xml version="1.0"?>\n',
    ", behind a comment": b"<!-- a TIFF -->",
}


def disguises() -> Iterator[Case]:
    """What GDAL would open for its content, named .tif."""
    for name, text in _DISGUISES.items():
        yield Case(f"VRT of {name}", _text(text))
    for name, lead in _LEADS.items():
        yield Case(f"VRT{name}", _text(_DISGUISES["a file"], lead))
    yield Case("VRT in UTF-16", _text(lambda place: vrt(str(place.canary_raster)).encode("utf-16")))
    wms = '<GDAL_WMS><Service name="TMS"><ServerUrl>{}/${{x}}</ServerUrl></Service></GDAL_WMS>'
    wmts = "<GDAL_WMTS><GetCapabilitiesUrl>{}</GetCapabilitiesUrl></GDAL_WMTS>"
    index = "<GDALTileIndexDataset><IndexDataset>{}</IndexDataset></GDALTileIndexDataset>"
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><image href="{}"/></svg>'
    envi = "ENVI\nsamples = 90\nlines = 70\nbands = 3\ndata file = {}\n"
    others: dict[str, Callable[[Place], str | bytes]] = {
        "WMS": lambda place: wms.format(place.url),
        "WCS": lambda place: f"<WCS_GDAL><ServiceURL>{place.url}</ServiceURL></WCS_GDAL>",
        "WMTS": lambda place: wmts.format(place.url),
        "a tile index": lambda place: index.format(place.canary),
        "STAC": lambda place: '{"type": "FeatureCollection", "stac_version": "1.0.0", "assets": '
        f'{{"a": {{"href": "{place.url}/a.tif"}}}}}}',
        "Zarr": lambda place: f'{{"zarr_format": 2, "path": "{place.canary}"}}',
        "ENVI": lambda place: envi.format(place.canary),
        "a Derived name": lambda place: f"DERIVED_SUBDATASET:AMPLITUDE:{place.canary_raster}",
        "SVG": lambda place: svg.format(place.url),
        "HTML": lambda place: f'<!DOCTYPE html><img src="{place.url}/a.png">',
        "PDF": lambda place: b"%PDF-1.7\n" + bytes(500),
        "HDF5": lambda place: b"\x89HDF\r\n\x1a\n" + bytes(500),
        "netCDF": lambda place: b"CDF\x01" + bytes(500),
        "GeoPackage": lambda place: b"SQLite format 3\0" + bytes(4000),
        "a zip": lambda place: b"PK\x03\x04" + bytes(500),
        "gzip": lambda place: b"\x1f\x8b\x08" + bytes(500),
        "GIF": lambda place: b"GIF89a" + bytes(500),
        "BMP": lambda place: b"BM" + bytes(500),
        "WebP": lambda place: b"RIFF\x10\0\0\0WEBPVP8 " + bytes(500),
        "NITF": lambda place: b"NITF02.10" + bytes(500),
        "Erdas": lambda place: b"EHFA_HEADER_TAG\0" + bytes(500),
        "zeros": lambda place: bytes(5000),
    }  # fmt: skip
    for name, text in others.items():
        yield Case(f"{name}, named .tif", _text(text))


def _text(text: Callable[[Place], str | bytes], lead: bytes = b"") -> Callable[[Place], None]:
    def make(place: Place) -> None:
        made = text(place)
        data = made.encode() if isinstance(made, str) else made
        (place.folder / "scene.tif").write_bytes(lead + data)

    return make


def allowed_vrts() -> Iterator[Case]:
    """VRTs that the user allowed: other files are read then, but no code is run."""
    env = {"GDAL_VRT_ENABLE_PYTHON": "YES"}
    yield Case("VRT of Python, allowed", _own_python, options=VRT, notes={"env": env})
    trusted = env | {"GDAL_VRT_PYTHON_TRUSTED_MODULES": "*"}
    yield Case("VRT of Python, trusted", _own_python, options=VRT, notes={"env": trusted})
    itself = _text(lambda place: vrt(str(place.folder / "scene.tif")))
    yield Case("VRT of itself, allowed", itself, options=VRT)
    yield Case("VRT of nothing, allowed", _text(lambda place: vrt("/nothing.tif")), options=VRT)
    nested = b"<VRTDataset>" + b"<a>" * 100_000
    yield Case("VRT nested 100,000 deep, allowed", _text(lambda place: nested), options=VRT)
    vast_one = '<VRTDataset rasterXSize="{0}" rasterYSize="{0}"/>'.format(2**31 - 1)
    yield Case("VRT of 2^62 px, allowed", _text(lambda place: vast_one), options=VRT)


def sidecars() -> Iterator[Case]:
    """A good TIFF, and beside it what GDAL reads without being asked."""
    for ending in (".msk", ".ovr", ".msk.ovr", ".MSK"):
        # Overviews of a mask that is not there are nobody's.
        outcome = SAME if ending == ".msk.ovr" else REFUSED
        text = _DISGUISES["a file"]
        yield Case(f"VRT as {ending}", _beside(ending, text), outcome)
    yield Case("mask that is cut short", _beside(".msk", lambda place: tiff(PIXELS[:1])[:-20]))
    cut = tiff(PIXELS[:1], geo=False)[:3000]
    yield Case("overviews that are cut short", _beside(".ovr", lambda place: cut))
    yield Case("mask of one huge tile", _beside(".msk", lambda place: vast(70, 2**15)))
    other = tiff(np.full((1, 30, 40), 255, np.uint8), geo=False)
    yield Case("mask of another size", _beside(".msk", lambda place: other), SAME)
    meta = '<PAMDataset><Metadata domain="{}"><MDI key="{}">{}</MDI></Metadata></PAMDataset>'
    for domain in ("OVERVIEWS", "ProxyOverviewRequest", "xml:VRT"):
        text = partial(meta.format, domain, "OVERVIEW_FILE")
        named = _beside(".aux.xml", lambda place, text=text: text(place.canary))
        yield Case(f"sidecar with {domain}", named)
    deep = "<a>" * 100_000
    laughs = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    entity = '<!DOCTYPE x [<!ENTITY a SYSTEM "{}">]><PAMDataset>&a;</PAMDataset>'
    texts: dict[str, tuple[Callable[[Place], str], Outcome]] = {
        "broken": (lambda place: "<PAMDataset>", REFUSED),
        "empty": (lambda place: "", REFUSED),
        "nested 100,000 deep": (lambda place: deep, REFUSED),
        "that laughs": (lambda place: f"{laughs}]><PAMDataset>&j;</PAMDataset>", REFUSED),
        "that names a file": (lambda place: entity.format(place.canary.as_uri()), REFUSED),
        "that names a server": (lambda place: entity.format(place.url), REFUSED),
        "of 20 MiB": (lambda place: " " * 20 * MIB, REFUSED),
        "of 100,000 items": (lambda place: _items(100_000), REFUSED),
        "of 5,000 items": (lambda place: _items(5000), SAME),
    }
    for name, (text, outcome) in texts.items():
        yield Case(f"sidecar {name}", _beside(".aux.xml", text), outcome)
    yield Case("world file of words", _beside("w", lambda place: "a b c"), SAME)
    yield Case("mask that is a pipe", _pipe(".msk"), says="no regular file")
    yield Case("sidecar that is a pipe", _pipe(".aux.xml"), says="no regular file")


def _items(count: int) -> str:
    items = "".join(f'<MDI key="k{n}">v</MDI>' for n in range(count))
    return f"<PAMDataset><Metadata>{items}</Metadata></PAMDataset>"


def _beside(ending: str, content: Callable[[Place], str | bytes]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (place.folder / "scene.tif").write_bytes(tiff(PIXELS))
        made = content(place)
        data = made.encode() if isinstance(made, str) else made
        (place.folder / f"scene.tif{ending}").write_bytes(data)

    return make


def _pipe(ending: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        (place.folder / "scene.tif").write_bytes(tiff(PIXELS))
        os.mkfifo(place.folder / f"scene.tif{ending}")

    return make


def no_files() -> Iterator[Case]:
    """Sources that are no regular file, or none at all."""
    yield Case("missing", lambda place: None, says="no such file")
    yield Case("a folder", lambda place: (place.folder / "scene.tif").mkdir(), says="folder")
    yield Case("a pipe", lambda place: os.mkfifo(place.folder / "scene.tif"), says="regular")
    yield Case("a device", _link("/dev/zero"), says="regular")
    yield Case("a link to itself", _link("scene.tif"))
    yield Case("a link to nothing", _link("nothing.tif"), says="no such file")
    yield Case("a file of /proc", _link("/proc/self/mem"))
    yield Case("a name that only GDAL knows", lambda place: None, source="GTIFF_DIR:1:canary.tif")
    yield Case("a target as source", written(PIXELS), source="out.tif", says="out.tif")


def _link(target: str) -> Callable[[Place], None]:
    return lambda place: (place.folder / "scene.tif").symlink_to(target)
