"""Joins the staged blocks into the final raster, reads it back, and puts it in place at once.

The workers have encoded every file block already: finishing writes header and directories, copies
bytes, and makes only the few overviews that are smaller than a block.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from tilemapper.errors import StagingError, TargetError
from tilemapper.raster.atomic import atomic_write, writing_failed
from tilemapper.raster.encode import FILE_BLOCK, encode_mask, encoding_of, template_tags
from tilemapper.raster.gdal_writing import gdal_writes
from tilemapper.raster.lattice import Block
from tilemapper.raster.opening import open_raster
from tilemapper.raster.pyramid import FileBlock, Pyramid, halved
from tilemapper.raster.tiff import Image, framed, image_tags, mask_tags, write_header
from tilemapper.render.blockfile import PixelHash
from tilemapper.render.journal import Receipt
from tilemapper.render.plan import Layer, Plan
from tilemapper.render.staging import Staging

ALL_VALID = encode_mask(np.ones((FILE_BLOCK, FILE_BLOCK), bool))


@dataclass
class _Place:
    """Where the bytes of a file block and of its mask are: a file and offsets, or memory."""

    path: Path | None = None
    at: int = 0
    pixels: int = 0
    mask: int = 0
    data: bytes = b""


@dataclass
class _Levels:
    """All file blocks of a layer by level, row, col."""

    sizes: list[tuple[int, int]]  # (height, width) of each level
    places: list[dict[tuple[int, int], _Place]] = field(default_factory=list)

    def grid(self, level: int) -> tuple[int, int]:
        height, width = self.sizes[level]
        return -(-height // FILE_BLOCK), -(-width // FILE_BLOCK)


def finish(staging: Staging, tags: Mapping[str, str]) -> None:
    """Builds every layer's raster from the finished blocks and renames it to its final name.

    Raises:
        StagingError: a block is missing or damaged, or the joined raster reads back otherwise.
        DiskFullError, TargetError: the target cannot be written.
    """
    for layer in staging.plan.layers:
        finish_layer(staging, layer, tags)


def finish_layer(staging: Staging, layer: Layer, tags: Mapping[str, str]) -> None:
    """One layer of `finish`."""
    plan, target = staging.plan, Path(layer.target)
    try:
        # Where a kill leaves it, the next run clears it away; another folder may be another disk.
        beside = target.parent.resolve() == staging.folder.parent.resolve()
        with atomic_write(target, inside=staging.folder if beside else None) as part:
            join(staging, layer, tags, part)
            _check(plan, layer, staging.done, part)
            if _needs_gdal(plan, layer):
                _translate(part, plan, target)
                _check(plan, layer, staging.done, part)
    except RasterioError as error:
        raise TargetError(f"{target}: GDAL cannot write it ({error}); check --co") from error
    except OSError as error:
        if isinstance(error, TargetError) or error.errno is None:
            raise
        raise writing_failed(target, error) from error


def join(staging: Staging, layer: Layer, tags: Mapping[str, str], path: Path) -> None:
    """Writes header, directories and the encoded file blocks of a layer to ``path``."""
    plan, source = staging.plan, staging.plan.source
    levels = _collect(staging, layer)
    masked = any(receipt.any_invalid for receipt in staging.done.values())
    template = template_tags(
        layer.encoding,
        bands=layer.bands,
        crs=CRS.from_wkt(source.crs_wkt) if source.crs_wkt else None,
        transform=source.transform if source.crs_wkt or _placed(source.transform) else None,
        tags=layer_tags(plan, layer, tags),
    )
    images: list[Image] = []
    for level, (height, width) in enumerate(levels.sizes):
        places = [levels.places[level].get(at, _Place()) for at in _grid(levels, level)]
        sizes = [place.pixels for place in places]
        images.append(Image(image_tags(template, height, width, reduced=level > 0), sizes))
        if masked:
            sizes = [place.mask for place in places]
            images.append(Image(mask_tags(height, width, FILE_BLOCK, reduced=level > 0), sizes))
    step = 2 if masked else 1
    order = [
        (level * step + kind, block)
        for level in reversed(range(len(levels.sizes)))
        for block in range(len(images[level * step].sizes))
        for kind in range(step)
    ]
    with path.open("wb") as dst:
        write_header(dst, images, order)
        for level in reversed(range(len(levels.sizes))):
            _copy_level(levels, level, dst, masked=masked)


def layer_tags(plan: Plan, layer: Layer, tags: Mapping[str, str]) -> dict[str, str]:
    """The output's tags; a layer of classes also says their names, in the order of their values."""
    if layer.name != "classes":
        return dict(tags)
    return {**tags, "TILEMAPPER_CLASSES": json.dumps([name for name, _ in plan.palette])}


def _grid(levels: _Levels, level: int) -> Iterator[tuple[int, int]]:
    rows, cols = levels.grid(level)
    return itertools.product(range(rows), range(cols))


def _placed(transform: tuple[float, ...]) -> bool:
    return tuple(transform[:6]) not in (
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    )


def _collect(staging: Staging, layer: Layer) -> _Levels:
    """The places of all file blocks: those that workers encoded, and the overviews above them."""
    plan = staging.plan
    height, width = plan.source.height, plan.source.width
    sizes = [(halved(height, level), halved(width, level)) for level in range(plan.levels)]
    levels = _Levels(sizes, [{} for _ in sizes])
    for block in plan.blocks:
        if block.name not in staging.done:
            raise StagingError(f"{staging.folder}: block {block.name} is missing; run it again")
        folder = staging.blocks / block.name
        index = json.loads((folder / f"{layer.name}.json").read_text())
        for level, row, col, at, pixels, mask in index:
            first = (
                (block.row >> level) // FILE_BLOCK + row,
                (block.col >> level) // FILE_BLOCK + col,
            )
            levels.places[level][first] = _Place(folder / f"{layer.name}.tiles", at, pixels, mask)
    if plan.block_levels < plan.levels:
        _top_levels(staging, layer, levels)
    return levels


def _top_levels(staging: Staging, layer: Layer, levels: _Levels) -> None:
    """Makes the overviews whose file blocks span several blocks, from the blocks' rests."""
    plan, first = staging.plan, staging.plan.block_levels

    def keep(part: FileBlock) -> None:
        levels.places[part.level][part.row, part.col] = _Place(
            pixels=len(part.pixels), mask=len(part.mask), data=part.pixels + part.mask
        )

    pyramid = Pyramid(
        width=levels.sizes[first][1],
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


def _rest(staging: Staging, layer: Layer, block: Block, level: int) -> NDArray[np.uint8]:
    """The rest of a block, (bands + 1, height, width) at ``level``: pixels and validity."""
    data = (staging.blocks / block.name / f"{layer.name}.rest").read_bytes()
    shape = (layer.bands + 1, halved(block.height, level), halved(block.width, level))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _copy_level(levels: _Levels, level: int, dst: BinaryIO, *, masked: bool) -> None:
    """Copies a level's file blocks, each followed by its mask, row by row."""
    opened: dict[Path, BinaryIO] = {}
    try:
        for at in _grid(levels, level):
            place = levels.places[level].get(at)
            if place is None:
                continue
            size = place.pixels + (place.mask if masked else 0)
            data = place.data[:size]
            if place.path is not None:
                if place.path not in opened:
                    opened[place.path] = place.path.open("rb")
                data = os.pread(opened[place.path].fileno(), size, place.at)
            if len(data) != size:
                raise StagingError(f"{place.path}: shorter than its index says; run it again")
            dst.write(framed(data[: place.pixels]) + framed(data[place.pixels :]))
    finally:
        for file in opened.values():
            file.close()


def _needs_gdal(plan: Plan, layer: Layer) -> bool:
    return layer.name == "map" and (
        plan.driver != "COG" or encoding_of(plan.creation_options) is None
    )


def _translate(part: Path, plan: Plan, target: Path) -> None:
    """Has GDAL write the joined raster again, for drivers and options that only it knows."""
    again = part.with_name(part.stem + ".gdal" + part.suffix)
    try:
        options: dict[str, Any] = {"BIGTIFF": "IF_SAFER", **plan.creation_options}
        if plan.driver == "GTiff":
            options = {"TILED": "YES", "COMPRESS": "DEFLATE", **options}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), gdal_writes(target, "check --co"):
            rasterio.shutil.copy(str(part), str(again), driver=plan.driver, **options)
        again.replace(part)
    finally:
        again.unlink(missing_ok=True)


def _check(plan: Plan, layer: Layer, receipts: Mapping[str, Receipt], path: Path) -> None:
    """Reads the joined raster back through GDAL and compares every block and the georeferencing."""
    source = plan.source
    lossless = encoding_of(plan.creation_options) is not None or layer.name != "map"
    # Nothing else computes by now, so that all cores may decode.
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), open_raster(str(path)) as dst:
        if (dst.height, dst.width, dst.count) != (source.height, source.width, layer.bands):
            raise StagingError(f"{path}: read back with another size; check the disk, run again")
        if source.crs_wkt and dst.crs != CRS.from_wkt(source.crs_wkt) and dst.crs is None:
            raise StagingError(f"{path}: read back without its CRS; report this as a defect")
        if _placed(source.transform) and not np.allclose(
            dst.transform[:6], source.transform[:6], rtol=1e-12, atol=0
        ):
            raise StagingError(f"{path}: read back with another transform; report this as a defect")
        if not lossless:
            return
        for block in plan.blocks:
            if _pixel_hash(dst, block) != receipts[block.name].pixels[layer.name]:
                raise StagingError(
                    f"{path}: block {block.name} reads back other than it was rendered; check the "
                    "disk, then run the same command again"
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
