"""Joins a layer's staged file blocks into one GeoTIFF: header, directories, then bytes copied.

The workers have encoded the file blocks already; `places` says where they are.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from rasterio.crs import CRS

from tilemapper.errors import StagingError
from tilemapper.raster.encode import FILE_BLOCK, template_tags
from tilemapper.raster.lattice import Block
from tilemapper.raster.summed import Summed
from tilemapper.raster.tiff import Image, framed, image_tags, mask_tags, write_header
from tilemapper.render.places import Joined, collect, tiles_file
from tilemapper.render.plan import Layer, Plan
from tilemapper.render.staging import Staging

UNPLACED = ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))


def join(
    staging: Staging, layer: Layer, tags: Mapping[str, str], path: Path, made: BinaryIO
) -> Joined:
    """Writes header, directories and the encoded file blocks of a layer to ``path``.

    ``made`` is an empty file for the overviews that no worker could make, see `collect`.

    Raises:
        StagingError: a block is missing or damaged.
        OSError: the file cannot be written.
    """
    plan, source = staging.plan, staging.plan.source
    joined = collect(staging, layer, made)
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
