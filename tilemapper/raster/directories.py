"""A TIFF's directories, looked at before GDAL opens it, for what GDAL passes over in silence.

A file cut short may lose its georeferencing, its mask, or its list of tiles: GDAL warns, and goes
on with a raster that lies nowhere, is valid everywhere, or is black. Metadata of a hundred
thousand items keep it busy for a minute, and a mask or overview may be one huge file block.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tilemapper.errors import RasterError

MAX_DIRECTORIES = 1000
MAX_METADATA_ITEMS = 20_000
MAX_METADATA_BYTES = 4 * 2**20
MAX_FILE_BLOCK_BYTES = 256 * 2**20
_READ_BYTES = 2**20

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 262, 277, 278, 284
_COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT, _METADATA = 259, 322, 323, 42112
_LISTS = {273: "strips", 279: "strips", 324: "tiles", 325: "tiles"}
# Of these, where strips or tiles begin.
_STARTS = (273, 324)
# None, LZW, PackBits: any bytes can be pixels. Other compressions tell what is not theirs.
_TAKING_ANY = (1, 5, 32773)
_GEOREFERENCING = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
# Colours that GDAL neither names nor turns into RGB.
_COLOUR_SPACES = {9: "ICCLAB", 10: "ITULAB", 32844: "LogL", 32845: "LogLuv"}
_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_ITEM_BYTES |= {13: 4, 16: 8, 17: 8, 18: 8}
_PLACES = (3, 4, 13, 16, 18)  # the types that can say where something lies


@dataclass(frozen=True)
class _Entry:
    """One field: TIFF type, number of values, and where they begin in the file."""

    kind: int
    count: int
    at: int

    @property
    def size_bytes(self) -> int:
        return self.count * _ITEM_BYTES.get(self.kind, 1)


class _Tiff:
    """The bytes of a TIFF, by offset."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file, self.path = file, path
        self.size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        known = len(head) == 16
        start = 8 if self.big else 4
        letter = "Q" if self.big else "I"
        self.first = self.numbers(letter, head[start : 2 * start])[0] if known else 0

    def numbers(self, letters: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + letters, data)

    def read(self, at: int, length: int) -> bytes:
        """Bytes, all of them. Raises RasterError where the file ends before."""
        if at + length > self.size:
            raise self.cut_short("a directory")
        self.file.seek(at)
        return self.file.read(length)

    def try_reading(self, entry: _Entry, most: int) -> None:
        """Reads an entry's values, so many bytes at most, and forgets them.

        Raises OSError where the disk cannot give them.
        """
        self.file.seek(entry.at)
        left = min(entry.size_bytes, most)
        while left > 0 and (found := self.file.read(min(left, _READ_BYTES))):
            left -= len(found)

    def cut_short(self, what: str) -> RasterError:
        return RasterError(
            f"{self.path}: {what} lies beyond its end, at {self.size} bytes: it is cut short or "
            "damaged; copy or download it again"
        )

    def directory(self, at: int) -> tuple[dict[int, _Entry], int]:
        """The entries at an offset by tag, and where the next directory is."""
        letter, wide, row = ("Q", 8, 20) if self.big else ("H", 4, 12)
        start = at + struct.calcsize(letter)
        (count,) = self.numbers(letter, self.read(at, start - at))
        if count > 65535:
            raise self.cut_short("a directory")
        table = self.read(start, row * count + wide)
        value = "Q" if self.big else "I"
        entries: dict[int, _Entry] = {}
        for place in range(0, row * count, row):
            fields = self.numbers("HH" + 2 * value, table[place : place + row])
            tag, kind, items, where = fields
            entry = _Entry(kind, items, start + place + row - wide)
            if entry.size_bytes > wide:
                entry = _Entry(kind, items, where)
            entries.setdefault(tag, entry)
        (following,) = self.numbers(value, table[-wide:])
        return entries, following

    def number(self, entries: dict[int, _Entry], tag: int, default: int) -> int:
        """The first value of a SHORT or LONG field; the default where it is none."""
        letters = {3: "H", 4: "I", 16: "Q"}
        entry = entries.get(tag)
        if entry is None or entry.kind not in letters or not entry.count:
            return default
        letter = letters[entry.kind]
        return self.numbers(letter, self.read(entry.at, struct.calcsize(letter)))[0]


def check_directories(path: str) -> None:
    """Refuses a local TIFF that has lost something on which the result depends, or is a bomb.

    What GDAL refuses by itself is left to it.

    Raises:
        RasterError: georeferencing, a directory, or a list of strips or tiles lies beyond the
            file's end or is too short; or there is more than `MAX_DIRECTORIES` directories,
            metadata, or bytes in a tile of a mask or overview.
        OSError: the disk cannot give them.
    """
    with Path(path).open("rb") as file:
        tiff = _Tiff(file, path)
        at, seen = tiff.first, set[int]()
        while at and at not in seen:
            seen.add(at)
            if len(seen) > MAX_DIRECTORIES:
                raise RasterError(
                    f"{path}: more than {MAX_DIRECTORIES} directories found, a raster has some "
                    "ten; extract it with gdal_translate"
                )
            entries, at = tiff.directory(at)
            _check_lists(tiff, entries)
            _check_block(tiff, entries)
            _check_metadata(tiff, entries)
            _check_colours(tiff, entries)
            for entry in (entries[tag] for tag in _GEOREFERENCING if tag in entries):
                if _is_beyond(tiff, entry):
                    raise tiff.cut_short("georeferencing")
                tiff.try_reading(entry, MAX_METADATA_BYTES)  # GDAL would go on without it


def _is_beyond(tiff: _Tiff, entry: _Entry) -> bool:
    return entry.at + entry.size_bytes > tiff.size


def _check_lists(tiff: _Tiff, entries: dict[int, _Entry]) -> None:
    """Where strips or tiles lie: those that a list leaves out, GDAL reads as black."""
    needed = _needed(tiff, entries)
    for tag, name in _LISTS.items():
        entry = entries.get(tag)
        if entry is None:
            continue
        if _is_beyond(tiff, entry):
            raise tiff.cut_short(f"the list of {name}")
        if entry.kind not in _PLACES or entry.count < needed:
            raise RasterError(
                f"{tiff.path}: {entry.count} {name} listed (type {entry.kind}), its size needs "
                f"{needed}: it is damaged; copy or download it again"
            )
        # Where the disk cannot give a part of it, libtiff takes 0 for the place, and the file's
        # first bytes for pixels.
        if tag in _STARTS and tiff.number(entries, _COMPRESSION, 1) in _TAKING_ANY:
            tiff.try_reading(entry, tiff.size)


def _needed(tiff: _Tiff, entries: dict[int, _Entry]) -> int:
    width, height = (tiff.number(entries, tag, 0) for tag in (_WIDTH, _HEIGHT))
    tile_width = tiff.number(entries, _TILE_WIDTH, 0) or width
    tile_height = tiff.number(entries, _TILE_HEIGHT, 0) or height
    if 324 not in entries:
        tile_width, tile_height = width, tiff.number(entries, _ROWS, height) or height
    if not tile_width or not tile_height:
        return 0
    planes = tiff.number(entries, _SAMPLES, 1) if tiff.number(entries, _PLANAR, 1) == 2 else 1
    return planes * -(-width // tile_width) * -(-height // tile_height)


def _check_block(tiff: _Tiff, entries: dict[int, _Entry]) -> None:
    """Tiles of masks and overviews, of which an open data set says nothing."""
    rows, cols = (tiff.number(entries, tag, 0) for tag in (_TILE_HEIGHT, _TILE_WIDTH))
    samples = 1 if tiff.number(entries, _PLANAR, 1) == 2 else tiff.number(entries, _SAMPLES, 1)
    # Masks of one bit are unpacked to bytes.
    block_bytes = rows * cols * samples * max(8, tiff.number(entries, _BITS, 1)) // 8
    if block_bytes > MAX_FILE_BLOCK_BYTES:
        raise RasterError(
            f"{tiff.path}: one file block holds {block_bytes / 2**20:.0f} MiB, at most "
            f"{MAX_FILE_BLOCK_BYTES >> 20} are read; rewrite it with gdal_translate -co TILED=YES"
        )


def _check_metadata(tiff: _Tiff, entries: dict[int, _Entry]) -> None:
    """GDAL's own metadata: XML, whose items it compares with one another."""
    entry = entries.get(_METADATA)
    if entry is None or _is_beyond(tiff, entry):
        return
    too_long = entry.size_bytes > MAX_METADATA_BYTES
    if too_long or tiff.read(entry.at, entry.size_bytes).count(b"<Item") > MAX_METADATA_ITEMS:
        raise RasterError(
            f"{tiff.path}: more than {MAX_METADATA_ITEMS} items or {MAX_METADATA_BYTES >> 20} MiB "
            "of metadata found; copy the raster with gdal_translate -nomd"
        )


def _check_colours(tiff: _Tiff, entries: dict[int, _Entry]) -> None:
    space = _COLOUR_SPACES.get(tiff.number(entries, _PHOTOMETRIC, 2))
    if space is not None:
        raise RasterError(
            f"{tiff.path}: bands are {space}, red, green, blue are needed; convert it to RGB"
        )
