"""A TIFF container for file blocks that are encoded already: header, directories, bytes.

GDAL encodes the file blocks and writes the georeferencing tags of a one-block template; this
module reads those back and lays everything out as a Cloud Optimized GeoTIFF: directories first,
then the blocks of the smallest overview, and so on up to the full resolution. Little-endian,
classic TIFF below 4 GB and BigTIFF above. Layout: TIFF 6.0 and GDAL's COG driver documentation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from tilemapper.errors import StagingError
from tilemapper.raster.summed import Summed

Tags = dict[int, tuple[int, int, bytes]]  # tag -> (type, count, little-endian value)

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TYPE_BYTES |= {13: 4, 16: 8, 17: 8, 18: 8}
SHORT, LONG, LONG8 = 3, 4, 16

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT = 277, 284, 317, 322, 323
OFFSETS, COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT = 324, 325, 338, 339
# What a template brings along: software, colour map, geo keys, GDAL's metadata and nodata.
CARRIED = {305, 320, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113}
PLACING = (33550, 33922, 34264)  # pixel scale, tie points, transformation
DEFLATE, MASK_PHOTOMETRIC = 8, 4

# Tells GDAL that each file block has its size before it and its last 4 bytes repeated after it,
# and that masks follow their image: it then reads remote files with half of the requests.
_GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_GHOST_MASK = b"MASK_INTERLEAVED_WITH_IMAGERY=YES\n"


def read_directory(data: bytes | memoryview) -> Tags:
    """The first directory of a little-endian classic TIFF held in memory.

    Raises:
        StagingError: the bytes are no such TIFF.
    """
    if bytes(data[:4]) != b"II*\0":
        raise StagingError("encoder: GDAL gave no classic TIFF; report this as a defect")
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    tags: Tags = {}
    for index in range(entries):
        place = at + 2 + 12 * index
        tag, kind, count = struct.unpack_from("<HHI", data, place)
        size = _TYPE_BYTES[kind] * count
        start = place + 8 if size <= 4 else struct.unpack_from("<I", data, place + 8)[0]
        tags[tag] = (kind, count, bytes(data[start : start + size]))
    return tags


def numbers(tags: Tags, tag: int) -> tuple[int, ...]:
    """The values of an integer tag; empty when it is not there."""
    if tag not in tags:
        return ()
    kind, count, value = tags[tag]
    return struct.unpack(f"<{count}{ {1: 'B', SHORT: 'H', LONG: 'I', LONG8: 'Q'}[kind] }", value)


def encoded_tiles(data: bytes | memoryview) -> list[bytes]:
    """The encoded file blocks of a TIFF in memory, row by row, without their directory."""
    tags = read_directory(data)
    places = zip(numbers(tags, OFFSETS), numbers(tags, COUNTS), strict=True)
    return [bytes(data[offset : offset + count]) for offset, count in places]


@dataclass
class Image:
    """One directory to be written: an image, an overview, or the mask of one.

    ``sizes`` are the bytes of its file blocks, row by row; 0 for a block that is not stored.
    """

    tags: Tags
    sizes: list[int]
    offsets: list[int] = field(default_factory=list)


def shorts(*values: int) -> tuple[int, int, bytes]:
    """A tag's value of 16-bit integers."""
    return SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def longs(*values: int) -> tuple[int, int, bytes]:
    """A tag's value of 32-bit integers."""
    return LONG, len(values), struct.pack(f"<{len(values)}I", *values)


def image_tags(template: Tags, height: int, width: int, *, reduced: bool) -> Tags:
    """Tags of an image or overview of this size, in the format of the template."""
    tags = {tag: value for tag, value in template.items() if tag not in (OFFSETS, COUNTS)}
    if reduced:
        # Georeferencing and metadata belong to the full resolution; a colour map to each.
        tags = {tag: value for tag, value in tags.items() if tag not in CARRIED or tag == 320}
        tags[SUBFILE] = longs(1)
    tags[WIDTH], tags[HEIGHT] = longs(width), longs(height)
    return tags


def mask_tags(height: int, width: int, tile: int, *, reduced: bool) -> Tags:
    """Tags of a one-bit validity mask (1 = valid), DEFLATE-compressed."""
    return {
        SUBFILE: longs(5 if reduced else 4),
        WIDTH: longs(width),
        HEIGHT: longs(height),
        BITS: shorts(1),
        COMPRESSION: shorts(DEFLATE),
        PHOTOMETRIC: shorts(MASK_PHOTOMETRIC),
        SAMPLES: shorts(1),
        PLANAR: shorts(1),
        TILE_WIDTH: shorts(tile),
        TILE_HEIGHT: shorts(tile),
        SAMPLE_FORMAT: shorts(1),
    }


def write_header(
    dst: Summed | BinaryIO, images: list[Image], data_order: list[tuple[int, int]]
) -> int:
    """Writes header and directories; fills in each image's offsets.

    Args:
        dst: the file, at its start.
        images: directories in their order in the file.
        data_order: (image, file block) in the order in which the bytes will follow.

    Returns:
        The offset at which the first file block must follow, each one `framed`.
    """
    stored = sum(sum(image.sizes) for image in images)
    blocks = sum(len(image.sizes) for image in images)
    big = stored + 32 * blocks + (1 << 20) > 0xFFFF_FFFF
    ghost = _GHOST + (_GHOST_MASK if any(_is_mask(image) for image in images) else b"")
    ghost = f"GDAL_STRUCTURAL_METADATA_SIZE={len(ghost):06d} bytes\n".encode() + ghost
    start = (16 if big else 8) + len(ghost)
    start += start % 2
    end = start + sum(_directory_bytes(image, big) for image in images)
    at = end
    for image in images:
        image.offsets = [0] * len(image.sizes)
    for which, block in data_order:
        if images[which].sizes[block]:
            images[which].offsets[block] = at + 4
            at += images[which].sizes[block] + 8
    head = (
        b"II" + struct.pack("<HHHQ", 43, 8, 0, start)
        if big
        else b"II*\0" + struct.pack("<I", start)
    )
    dst.write((head + ghost).ljust(start, b"\0"))
    place = start
    for index, image in enumerate(images):
        size = _directory_bytes(image, big)
        following = place + size if index + 1 < len(images) else 0
        dst.write(_directory(image, place, following, big))
        place += size
    return end


def framed(data: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """A file block between its leader and trailer, as the header announces; nothing for none."""
    return (struct.pack("<I", len(data)), data, data[-4:]) if data else ()


def _is_mask(image: Image) -> bool:
    return numbers(image.tags, SUBFILE) in ((4,), (5,))


def _complete(image: Image, big: bool) -> Tags:
    kind, code = (LONG8, "Q") if big else (LONG, "I")
    count = len(image.sizes)
    offsets = image.offsets or [0] * count
    return image.tags | {
        OFFSETS: (kind, count, struct.pack(f"<{count}{code}", *offsets)),
        COUNTS: (LONG, count, struct.pack(f"<{count}I", *image.sizes)),
    }


def _directory_bytes(image: Image, big: bool) -> int:
    inline, entry, frame = (8, 20, 16) if big else (4, 12, 6)
    tags = _complete(image, big)
    outside = sum(len(v) + len(v) % 2 for _, _, v in tags.values() if len(v) > inline)
    size = frame + entry * len(tags) + outside
    return size + size % 2


def _directory(image: Image, place: int, following: int, big: bool) -> bytes:
    inline, entry, frame = (8, 20, 16) if big else (4, 12, 6)
    tags = sorted(_complete(image, big).items())
    at = place + frame + entry * len(tags)
    table, outside = [struct.pack("<Q" if big else "<H", len(tags))], []
    for tag, (kind, count, value) in tags:
        if len(value) > inline:
            slot = struct.pack("<Q" if big else "<I", at)
            value += b"\0" * (len(value) % 2)
            outside.append(value)
            at += len(value)
        else:
            slot = value.ljust(inline, b"\0")
        table.append(struct.pack("<HHQ" if big else "<HHI", tag, kind, count) + slot)
    table.append(struct.pack("<Q" if big else "<I", following))
    return b"".join(table + outside).ljust(_directory_bytes(image, big), b"\0")
