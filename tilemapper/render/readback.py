"""Reads a joined raster back, through GDAL, before it gets its name.

That it shows what was rendered follows from four things, each of which is looked at:

1. When a file block was encoded, it was decoded again and compared with its pixels; the sha256 of
   each block's file is in the journal.
2. The joined file has the bytes that were written to it: their checksum.
3. Where GDAL finds a file block, at any level, lie its bytes: each block's sha256 is taken again
   over the joined file, at the places and sizes that GDAL reads in its directories. So a damaged
   part, a block in another's place, and one that is missing are found, in overviews and masks too.
4. GDAL, told by those directories how to decode, gives the pixels: the first and the last file
   block of each level against zlib. Where zlib cannot do that, or GDAL has written the raster
   itself with options that keep pixels as they are, all of them are read through GDAL and compared
   with the journal.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS

from tilemapper.errors import StagingError
from tilemapper.raster.encode import FILE_BLOCK, stored_crs
from tilemapper.raster.lattice import Block
from tilemapper.raster.opening import open_raster
from tilemapper.raster.stored import LevelReader, StoredBlocks
from tilemapper.raster.summed import file_crc32
from tilemapper.render.blockfile import PixelHash
from tilemapper.render.joining import placed
from tilemapper.render.journal import Receipt
from tilemapper.render.places import Joined, Place, tiles_file
from tilemapper.render.plan import Layer, Plan
from tilemapper.render.staging import Staging

AGAIN = "check the disk, then run the same command again"


@dataclass(frozen=True, slots=True)
class _Found:
    """A file block of a joined raster: what was placed, and where GDAL finds it."""

    place: Place
    at: int
    mask_at: int


def check_joined(staging: Staging, layer: Layer, joined: Joined, path: Path) -> None:
    """Compares a joined raster with the blocks it was made of; see the top of this file.

    Raises:
        StagingError: it is not what was rendered.
        RasterioError: GDAL cannot read it.
    """
    if file_crc32(path) != joined.crc32:
        raise StagingError(f"{path}: the joined file reads back other than it was written; {AGAIN}")
    check_georeferencing(staging.plan, layer, path)
    _check_bytes(staging, layer, joined, path)
    if layer.encoding.compress == "DEFLATE":
        _check_levels(layer, joined, path)
    else:
        check_pixels(staging.plan, layer, staging.done, path)


def check_georeferencing(plan: Plan, layer: Layer, path: Path) -> None:
    """Compares size, bands, CRS and transform with the plan's."""
    source = plan.source
    with open_raster(str(path)) as dst:
        if (dst.height, dst.width, dst.count) != (source.height, source.width, layer.bands):
            raise StagingError(f"{path}: read back with another size; check the disk, run again")
        if source.crs_wkt and dst.crs != stored_crs(CRS.from_wkt(source.crs_wkt)):
            raise StagingError(f"{path}: read back with another CRS; report this as a defect")
        if placed(source.transform) and not np.allclose(
            dst.transform[:6], source.transform[:6], rtol=1e-12, atol=0
        ):
            raise StagingError(f"{path}: read back with another transform; report this as a defect")


def _check_bytes(staging: Staging, layer: Layer, joined: Joined, path: Path) -> None:
    """Every file block's bytes, where GDAL finds it, against the journal; blocks in parallel."""
    threads = len(os.sched_getaffinity(0))
    waiting: deque[tuple[str, Future[bool]]] = deque()
    with (
        StoredBlocks(path) as stored,
        path.open("rb") as file,
        ThreadPoolExecutor(threads, "read back") as pool,
    ):
        for block, found in _by_block(staging, joined, stored, path):
            if block is None:
                name = "an overview made while joining"
                job = pool.submit(_is_made, joined, found, file.fileno())
            else:
                name = f"block {block.name}"
                wanted = staging.done[block.name].files[f"{layer.name}.tiles"]
                tiles = tiles_file(staging, layer, block)
                job = pool.submit(_is_staged, joined, found, file.fileno(), tiles, wanted)
            waiting.append((name, job))
            while len(waiting) > 2 * threads:
                _settle(path, *waiting.popleft())
        while waiting:
            _settle(path, *waiting.popleft())


def _settle(path: Path, name: str, same: Future[bool]) -> None:
    if not same.result():
        raise StagingError(f"{path}: {name} reads back other than it was rendered; {AGAIN}")


def _by_block(
    staging: Staging, joined: Joined, stored: StoredBlocks, path: Path
) -> Iterator[tuple[Block | None, list[_Found]]]:
    """The file blocks that were staged with each block, and last those that were made at the end.

    Raises:
        StagingError: GDAL finds a file block of another size, or one that should not be there.
    """
    groups: dict[Block | None, list[tuple[int, int, int]]] = {}
    for level, places in enumerate(joined.places):
        for row, col in joined.grid(level):
            place = places.get((row, col))
            if place is not None:
                groups.setdefault(place.block, []).append((level, row, col))
            elif stored.place(joined.directory(level), row, col) != (0, 0):
                raise _misplaced(path, level, row, col)
    for block in [*staging.plan.blocks, None]:
        found = []
        for level, row, col in groups.pop(block, []):
            place = joined.places[level][row, col]
            at, size = stored.place(joined.directory(level), row, col)
            mask_at, mask_size = 0, place.mask
            if joined.masked:
                mask_at, mask_size = stored.place(joined.directory(level, mask=True), row, col)
            if (size, mask_size) != (place.pixels, place.mask):
                raise _misplaced(path, level, row, col)
            found.append(_Found(place, at, mask_at))
        yield block, sorted(found, key=lambda one: one.place.at)


def _misplaced(path: Path, level: int, row: int, col: int) -> StagingError:
    return StagingError(
        f"{path}: GDAL finds another file block than was written at level {level}, row {row}, "
        f"column {col}; report this as a defect"
    )


def _is_staged(joined: Joined, found: list[_Found], file: int, tiles: Path, wanted: str) -> bool:
    """Whether the file blocks are those of a block's file, whose sha256 the journal has."""
    sha = hashlib.sha256()
    with tiles.open("rb") as staged:
        for one in found:
            place = one.place
            sha.update(os.pread(file, place.pixels, one.at))
            if joined.masked:
                sha.update(os.pread(file, place.mask, one.mask_at))
            else:  # a mask that says nothing was left out
                sha.update(os.pread(staged.fileno(), place.mask, place.at + place.pixels))
    return sha.hexdigest() == wanted


def _is_made(joined: Joined, found: list[_Found], file: int) -> bool:
    """Whether the file blocks are those that were made while joining."""
    for one in found:
        place = one.place
        data = os.pread(file, place.pixels, one.at)
        data += os.pread(file, place.mask, one.mask_at) if joined.masked else b""
        if data != os.pread(joined.made.fileno(), len(data), place.at):
            return False
    return True


def _check_levels(layer: Layer, joined: Joined, path: Path) -> None:
    """The first and the last file block of each level, as any reader gets them."""
    with StoredBlocks(path) as stored, path.open("rb") as file:
        for level, places in enumerate(joined.places):
            with LevelReader(path, level, FILE_BLOCK) as reader:
                same = (reader.height, reader.width) == joined.sizes[level]
                for row, col in sorted({min(places), max(places)}) if places else []:
                    place = places[row, col]
                    at, _ = stored.place(joined.directory(level), row, col)
                    pixels, mask = os.pread(file.fileno(), place.pixels, at), b""
                    if joined.masked:
                        at, _ = stored.place(joined.directory(level, mask=True), row, col)
                        mask = os.pread(file.fileno(), place.mask, at)
                    predictor = layer.encoding.predictor
                    same = same and reader.shows(row, col, pixels, mask, predictor=predictor)
            if not same:
                raise StagingError(
                    f"{path}: GDAL reads other pixels than were written at level {level}; report "
                    "this as a defect"
                )


def check_pixels(plan: Plan, layer: Layer, receipts: Mapping[str, Receipt], path: Path) -> None:
    """Reads all pixels through GDAL and compares every block with the journal."""
    # Nothing else computes by now, so that all cores may decode.
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), open_raster(str(path)) as dst:
        for block in plan.blocks:
            if _pixel_hash(dst, block) != receipts[block.name].pixels[layer.name]:
                raise StagingError(
                    f"{path}: block {block.name} reads back other than it was rendered; {AGAIN}"
                )


def _pixel_hash(dst: Any, block: Block) -> str:
    """The hash of a block's pixels in a raster, as its receipt has it."""
    pixels = PixelHash()
    for row in range(block.row, block.row + block.height, FILE_BLOCK):
        height = min(FILE_BLOCK, block.row + block.height - row)
        window = rasterio.windows.Window(
            col_off=block.col, row_off=row, width=block.width, height=height
        )
        keep = dst.dataset_mask(window=window) > 0
        pixels.add(dst.read(window=window) * keep, keep)
    return pixels.hexdigest()
