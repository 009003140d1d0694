"""Whether a raster's overviews show its pixels: each level is halved and laid beside the next.

A viewer shows little else than overviews, so a map with right pixels below wrong ones is wrong.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from tilemapper.raster.encode import FILE_BLOCK
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.raster.opening import open_raster
from tilemapper.raster.pyramid import halve

BLOCKS = 4  # looked at of each level
# What GDAL's ways of halving leave the same: means of cells. Grey levels, on average and at most.
# JPEG and WEBP move those of noise by 3 to 5 on average and 9 to 16 at most, at any quality.
CELL = 16
BOUNDS, LOSSY_BOUNDS = (4.0, 32.0), (16.0, 96.0)
MASKS_APART = 0.05  # share of a block
FEW = CELL * CELL // 4  # pixels of a cell that are too few for a mean: half a pixel shows in them


def overview_fault(
    target: str, dst: Any, *, kind: str, lossless: bool, seed: int, piece: bool = False
) -> str:
    """What is wrong with the overviews, "" if nothing; ``dst`` is the raster, opened.

    Args:
        target: its path.
        dst: its full resolution.
        kind: map, classes or uncertainty; of a map GDAL may have made the overviews.
        lossless: its compression keeps every pixel.
        seed: of the file blocks that are looked at.
        piece: of a mosaic's map or layer, of which GDAL made the overviews whatever the kind.
    """
    by_gdal = piece or kind == "map"
    bounds = BOUNDS if lossless else LOSSY_BOUNDS
    with ExitStack() as stack:
        below = dst
        for level in range(len(dst.overviews(1))):
            above = stack.enter_context(open_raster(target, overview=level))
            height, width = -(-below.height // 2), -(-below.width // 2)
            # GDAL's COG driver leaves out half a pixel at odd ends where it makes all levels anew.
            spare = 1 if by_gdal else 0
            if not (
                0 <= height - above.height <= spare * (below.height % 2)
                and 0 <= width - above.width <= spare * (below.width % 2)
            ):
                return (
                    f"overview {level + 1} has {above.width} x {above.height} px, "
                    f"{width} x {height} are needed"
                )
            for block in _some_blocks(above, seed):
                try:
                    good = _agrees(below, above, block, kind, bounds, by_gdal=by_gdal)
                except RasterioError as error:
                    return f"overview {level + 1} cannot be read ({error})"
                if not good:
                    return f"overview {level + 1} shows another picture at {block.name}"
            below = above
    return ""


def _some_blocks(dst: Any, seed: int) -> list[Block]:
    blocks = Lattice(dst.height, dst.width).blocks(FILE_BLOCK)
    return random.Random(seed).sample(blocks, min(BLOCKS, len(blocks)))


def _agrees(
    below: Any,
    above: Any,
    block: Block,
    kind: str,
    bounds: tuple[float, float],
    *,
    by_gdal: bool,
) -> bool:
    """Whether a block of a level is the level below it, halved."""
    window = Window(
        2 * block.col,
        2 * block.row,
        min(2 * block.width, below.width - 2 * block.col),
        min(2 * block.height, below.height - 2 * block.row),
    )
    pixels, valid = _read(below, window)
    expected, keep = halve(pixels, valid, average=kind != "classes")
    found, kept = _read(above, Window(block.col, block.row, block.width, block.height))
    if not by_gdal:
        return np.array_equal(keep, kept) and np.array_equal(expected, found)
    if _masks_apart(valid, kept) > MASKS_APART:
        return False
    if kind == "classes":
        return True  # which of four classes is taken is GDAL's affair
    both = keep & kept
    apart = _cells((expected.astype(np.int16) - found) * both)
    count = _cells(both[None])
    enough = count[0] > FEW
    means = np.abs(apart[:, enough]) / count[:, enough]
    return not means.size or bool(means.mean() <= bounds[0] and means.max() <= bounds[1])


def _masks_apart(valid: NDArray[np.bool_], kept: NDArray[np.bool_]) -> float:
    """Share of a block that is kept where the level below is masked all around, or not where valid.

    Between those GDAL takes one pixel of four, where we keep what any of them is.
    """
    none = np.zeros((1, *valid.shape), np.uint8)
    some_valid, some_masked = (halve(none, mask, average=False)[1] for mask in (valid, ~valid))
    wrong = np.where(kept, ~_spread(some_valid), ~_spread(some_masked))
    return float(wrong.mean())


def _spread(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is True or touches what is, (height, width); the rim too, beyond which nobody looked."""
    padded = np.pad(mask, 1, constant_values=True)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _read(dst: Any, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels, 0 where they are masked, and what is not."""
    kept = dst.dataset_mask(window=window) > 0
    return dst.read(window=window) * kept, kept


def _cells(values: NDArray[Any]) -> NDArray[np.int64]:
    """Sums over cells of (bands, height, width), those at the ends of what is there."""
    _, height, width = values.shape
    rows, cols = range(0, height, CELL), range(0, width, CELL)
    sums = np.add.reduceat(values.astype(np.int64), [*rows], axis=1)
    summed: NDArray[np.int64] = np.add.reduceat(sums, [*cols], axis=2)
    return summed
