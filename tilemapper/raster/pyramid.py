"""Rows of pixels in, encoded file blocks of all overview levels out, in constant memory.

Each level buffers one row of file blocks; when it is full it is encoded and handed, halved, to
the next level. Halving is an average of 2 x 2 that leaves masked pixels out, in integers, so the
overviews do not depend on how the raster was cut into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.encode import FILE_BLOCK, Encoding, encode_mask, encode_rows


def level_count(height: int, width: int) -> int:
    """Levels of a raster, the full resolution included, until one file block holds it all.

    A side of one pixel cannot be halved: readers tell overviews apart by how much smaller each is.
    """
    levels = 1
    while max(height, width) > FILE_BLOCK and min(height, width) > 1:
        height, width, levels = -(-height // 2), -(-width // 2), levels + 1
    return levels


def halved(length: int, level: int) -> int:
    """Pixels of a length at an overview level; odd ends are kept, so halves are rounded up."""
    return -(-length // (1 << level))


def halve(
    pixels: NDArray[np.uint8], keep: NDArray[np.bool_], *, average: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Half the size: mean of the kept pixels of each 2 x 2, or its first kept one for classes.

    Args:
        pixels: (bands, height, width) uint8, 0 where not kept; odd sizes are rounded up.
        keep: (height, width) bool.
        average: False takes the first kept pixel instead, for classes, which have no mean.
    """
    odd = [(0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)]
    if odd[1][1] or odd[2][1]:
        pixels, keep = np.pad(pixels, odd), np.pad(keep, odd[1:])
    if not keep.any():  # half of a mosaic can be like that
        bands, height, width = pixels.shape
        none = np.zeros((height // 2, width // 2), bool)
        return np.zeros((bands, *none.shape), np.uint8), none
    corners = [(row, col) for row in (0, 1) for col in (0, 1)]
    kept = [keep[row::2, col::2] for row, col in corners]
    values = [pixels[:, row::2, col::2] for row, col in corners]
    some = kept[0] | kept[1] | kept[2] | kept[3]
    if not average:
        first = np.select([kept[0], kept[1], kept[2]], values[:3], values[3])
        return (first * some).astype(np.uint8), some
    total = values[0].astype(np.uint16)
    for value in values[1:]:
        total += value
    if all(part.all() for part in kept):
        return ((total + 2) >> 2).astype(np.uint8), some
    count = sum((part.astype(np.uint16) for part in kept), np.zeros(some.shape, np.uint16))
    count = np.maximum(count, 1)
    return ((2 * total + count) // (2 * count)).astype(np.uint8), some


@dataclass(frozen=True)
class FileBlock:
    """One encoded file block: where it lies at its level, its bytes, the bytes of its mask."""

    level: int
    row: int
    col: int
    pixels: bytes
    mask: bytes


class Pyramid:
    """Takes the rows of a part of a raster, from top to bottom, and emits encoded file blocks.

    Args:
        width: pixels a row of the part.
        first, count: the levels to encode, ``count`` of them beginning at level ``first``, at
            which the rows come in.
        emit: called with each file block, in a fixed order.
        after: called with the rows of the level after the last, (bands, n, width), (n, width).
    """

    def __init__(
        self,
        *,
        width: int,
        first: int,
        count: int,
        encoding: Encoding,
        average: bool,
        emit: Callable[[FileBlock], None],
        after: Callable[[NDArray[np.uint8], NDArray[np.bool_]], None] | None = None,
    ) -> None:
        self._level, self._encoding, self._average, self._emit = first, encoding, average, emit
        self._width, self._filled, self._block_row = width, 0, 0
        self._pixels: NDArray[np.uint8] | None = None
        self._keep = np.zeros((FILE_BLOCK, -(-width // FILE_BLOCK) * FILE_BLOCK), bool)
        self._next: Callable[[NDArray[np.uint8], NDArray[np.bool_]], None] | None = after
        self._deeper: Pyramid | None = None
        if count > 1:
            self._deeper = Pyramid(
                width=-(-width // 2),
                first=first + 1,
                count=count - 1,
                encoding=encoding,
                average=average,
                emit=emit,
                after=after,
            )
            self._next = self._deeper.add

    def add(self, pixels: NDArray[np.uint8], keep: NDArray[np.bool_]) -> None:
        """Adds rows: (bands, n, width) uint8, 0 where not kept, and (n, width) bool."""
        if self._pixels is None:
            self._pixels = np.zeros((len(pixels), *self._keep.shape), np.uint8)
        taken = 0
        while taken < len(keep):
            room = min(FILE_BLOCK - self._filled, len(keep) - taken)
            rows = slice(self._filled, self._filled + room)
            self._pixels[:, rows, : self._width] = pixels[:, taken : taken + room]
            self._keep[rows, : self._width] = keep[taken : taken + room]
            self._filled += room
            taken += room
            if self._filled == FILE_BLOCK:
                self._flush()

    def close(self) -> None:
        """Encodes what is left: the last rows of the part, fewer than a file block."""
        if self._filled:
            self._flush()
        if self._deeper is not None:
            self._deeper.close()

    def _flush(self) -> None:
        assert self._pixels is not None
        self._pixels[:, self._filled :] = 0
        self._keep[self._filled :] = False
        self._encode(self._pixels, self._keep)
        if self._next is not None:
            rows = slice(0, self._filled)
            pixels, keep = self._pixels[:, rows, : self._width], self._keep[rows, : self._width]
            self._next(*halve(pixels, keep, average=self._average))
        self._filled = 0
        self._block_row += 1

    def _encode(self, pixels: NDArray[np.uint8], keep: NDArray[np.bool_]) -> None:
        blocks = keep.shape[1] // FILE_BLOCK
        shown = [keep[:, at * FILE_BLOCK : (at + 1) * FILE_BLOCK] for at in range(blocks)]
        if not keep.any():
            return
        for col, encoded in enumerate(encode_rows(pixels, self._encoding)):
            if shown[col].any():
                mask = encode_mask(shown[col])
                self._emit(FileBlock(self._level, self._block_row, col, encoded, mask))
