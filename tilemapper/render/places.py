"""What a joined raster is made of: where the encoded bytes of each file block lie.

Workers have staged those of their blocks. Only the overviews that are smaller than a block are
made here, from what the blocks left for them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import StagingError
from tilemapper.raster.encode import FILE_BLOCK
from tilemapper.raster.lattice import Block
from tilemapper.raster.pyramid import FileBlock, Pyramid, halved
from tilemapper.render.plan import Layer
from tilemapper.render.staging import Staging


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


def collect(staging: Staging, layer: Layer, made: BinaryIO) -> Joined:
    """The places of all file blocks: those that workers encoded, and the overviews above them.

    ``made`` is an empty file for those that are made here; kept in memory they would grow with
    the raster.

    Raises:
        StagingError: a block is missing or damaged.
    """
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


def tiles_file(staging: Staging, layer: Layer, block: Block) -> Path:
    """Where the encoded file blocks of a block are."""
    return staging.blocks / block.name / f"{layer.name}.tiles"
