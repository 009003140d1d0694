"""Joins a layer's staged file blocks into one GeoTIFF: header, directories, then bytes copied.

The workers have encoded the file blocks already. Only the overviews that are smaller than a block
are made here, from what the blocks left for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilemapper.errors import StagingError
from tilemapper.raster.encode import FILE_BLOCK, template_tags
from tilemapper.raster.lattice import Block
from tilemapper.raster.pyramid import FileBlock, Pyramid, halved
from tilemapper.raster.summed import Summed
from tilemapper.raster.tiff import Image, framed, image_tags, mask_tags, write_header
from tilemapper.render.plan import Layer, Plan
from tilemapper.render.staging import Staging

UNPLACED = ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file block's bytes are, its mask's right after them: staged, or made at the end."""

    pixels: int  # bytes
    mask: int
    block: Block | None  # that they were staged with
    at: int  # in its file, or in that of what was made


@dataclass(frozen=True)
class Joined:
    """What a joined raster is made of.

    Attributes:
        sizes: (height, width) of each level.
        places: of each level the file blocks that are stored, by (row, col).
        masked: whether each file block is followed by its mask.
        made: the file blocks that no worker could make, in a file that has no name.
        crc32: of all bytes that were written; None before.
    """

    sizes: list[tuple[int, int]]
    places: list[dict[tuple[int, int], Place]]
    masked: bool
    made: BinaryIO
    crc32: int | None = None

    def grid(self, level: int) -> Iterator[tuple[int, int]]:
        """Row and col of all file blocks of a level, row by row."""
        rows, cols = (-(-length // FILE_BLOCK) for length in self.sizes[level])
        return itertools.product(range(rows), range(cols))

    def directory(self, level: int, *, mask: bool = False) -> int:
        """Which of the file's directories has a level's file blocks, or their masks."""
        return (2 * level + mask) if self.masked else level


def join(
    staging: Staging, layer: Layer, tags: Mapping[str, str], path: Path, made: BinaryIO
) -> Joined:
    """Writes header, directories and the encoded file blocks of a layer to ``path``.

    ``made`` is an empty file for those that are made here; kept in memory they would grow with
    the raster.

    Raises:
        StagingError: a block is missing or damaged.
        OSError: the file cannot be written.
    """
    plan, source = staging.plan, staging.plan.source
    joined = _collect(staging, layer, made)
    template = template_tags(
        layer.encoding,
        bands=layer.bands,
        crs=CRS.from_wkt(source.crs_wkt) if source.crs_wkt else None,
        transform=source.transform if source.crs_wkt or placed(source.transform) else None,
        tags=layer_tags(plan, layer, tags),
    )
    images: list[Image] = []
    for level, (height, width) in enumerate(joined.sizes):
        places = [joined.places[level].get(at) for at in joined.grid(level)]
        sizes = [place.pixels if place else 0 for place in places]
        images.append(Image(image_tags(template, height, width, reduced=level > 0), sizes))
        if joined.masked:
            sizes = [place.mask if place else 0 for place in places]
            images.append(Image(mask_tags(height, width, FILE_BLOCK, reduced=level > 0), sizes))
    levels = list(reversed(range(len(joined.sizes))))
    kinds = (False, True) if joined.masked else (False,)
    order = [
        (joined.directory(level, mask=mask), block)
        for level in levels
        for block in range(len(images[joined.directory(level)].sizes))
        for mask in kinds
    ]
    with path.open("wb") as file:
        dst = Summed(file)
        write_header(dst, images, order)
        for level in levels:
            _copy_level(staging, layer, joined, level, dst)
    return replace(joined, crc32=dst.crc32)


def layer_tags(plan: Plan, layer: Layer, tags: Mapping[str, str]) -> dict[str, str]:
    """The output's tags; a layer of classes also says their names, in the order of their values."""
    if layer.name != "classes":
        return dict(tags)
    return {**tags, "TILEMAPPER_CLASSES": json.dumps([name for name, _ in plan.palette])}


def placed(transform: tuple[float, ...]) -> bool:
    """Whether a transform places the raster somewhere, and is not only its rows and columns."""
    return tuple(transform[:6]) not in UNPLACED


def tiles_file(staging: Staging, layer: Layer, block: Block) -> Path:
    """Where the encoded file blocks of a block are."""
    return staging.blocks / block.name / f"{layer.name}.tiles"


def _collect(staging: Staging, layer: Layer, made: BinaryIO) -> Joined:
    """The places of all file blocks: those that workers encoded, and the overviews above them."""
    plan = staging.plan
    height, width = plan.source.height, plan.source.width
    sizes = [(halved(height, level), halved(width, level)) for level in range(plan.levels)]
    places: list[dict[tuple[int, int], Place]] = [{} for _ in sizes]
    masked = any(receipt.any_invalid for receipt in staging.done.values())
    for block in plan.blocks:
        for level, row, col, at, pixels, mask in json.loads(_small(staging, layer, block, "json")):
            first = (
                (block.row >> level) // FILE_BLOCK + row,
                (block.col >> level) // FILE_BLOCK + col,
            )
            places[level][first] = Place(pixels, mask, block, at)
    joined = Joined(sizes, places, masked, made)
    if plan.block_levels < plan.levels:
        _top_levels(staging, layer, joined)
    return joined


def _small(staging: Staging, layer: Layer, block: Block, suffix: str) -> bytes:
    """A small file of a block, compared with its receipt."""
    if block.name not in staging.done:
        raise StagingError(f"{staging.folder}: block {block.name} is missing; run it again")
    path = staging.blocks / block.name / f"{layer.name}.{suffix}"
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != staging.done[block.name].files[path.name]:
        raise StagingError(
            f"{path}: reads other than it was written; check the disk, then run the same command "
            "again"
        )
    return data


def _top_levels(staging: Staging, layer: Layer, joined: Joined) -> None:
    """Makes the overviews whose file blocks span several blocks, from the blocks' rests."""
    plan, first = staging.plan, staging.plan.block_levels

    def keep(part: FileBlock) -> None:
        place = Place(len(part.pixels), len(part.mask), None, joined.made.tell())
        joined.places[part.level][part.row, part.col] = place
        joined.made.write(part.pixels + part.mask)

    pyramid = Pyramid(
        width=joined.sizes[first][1],
        first=first,
        count=plan.levels - first,
        encoding=layer.encoding,
        average=layer.average,
        emit=keep,
    )
    for _, row in itertools.groupby(plan.blocks, key=lambda block: block.row):
        rests = [_rest(staging, layer, block, first) for block in row]
        stacked = np.concatenate(rests, axis=2)
        pyramid.add(stacked[:-1], stacked[-1].astype(bool))
    pyramid.close()
    joined.made.flush()


def _rest(staging: Staging, layer: Layer, block: Block, level: int) -> NDArray[np.uint8]:
    """The rest of a block, (bands + 1, height, width) at ``level``: pixels and validity."""
    shape = (layer.bands + 1, halved(block.height, level), halved(block.width, level))
    return np.frombuffer(_small(staging, layer, block, "rest"), np.uint8).reshape(shape)


def _copy_level(staging: Staging, layer: Layer, joined: Joined, level: int, dst: Summed) -> None:
    """Copies a level's file blocks, each followed by its mask, row by row."""
    with contextlib.ExitStack() as closing:
        opened: dict[Block, BinaryIO] = {}
        for at in joined.grid(level):
            place = joined.places[level].get(at)
            if place is None:
                continue
            size = place.pixels + (place.mask if joined.masked else 0)
            file = joined.made
            if place.block is not None:
                if opened and next(iter(opened)).row != place.block.row:
                    # A process may have a thousand files open; a row of blocks never needs as many.
                    closing.close()
                    opened.clear()
                if place.block not in opened:
                    staged = tiles_file(staging, layer, place.block).open("rb")
                    opened[place.block] = closing.enter_context(staged)
                file = opened[place.block]
            data = os.pread(file.fileno(), size, place.at)
            if len(data) != size:
                raise StagingError(
                    f"{staging.folder}: a block is shorter than its index says; check the disk, "
                    "then run the same command again"
                )
            for part in (memoryview(data)[: place.pixels], memoryview(data)[place.pixels :]):
                for piece in framed(part):
                    dst.write(piece)
