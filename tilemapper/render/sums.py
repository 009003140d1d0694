"""The exact sums of a block on the CPU, one row of tiles after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Place:
    """Where a tile's columns go: some of the block's may hold the neighbour's sums already."""

    skipped: int  # columns of the tile left of the block
    col: int  # of the block
    shared: int  # columns that are added to
    width: int  # columns in all; the others are the first to come


class RowSums:
    """Sums of weighted predictions over the tiles of a block, (channels, tile, width).

    A tile is multiplied by its weights and put where it belongs in one pass, class by class, so
    that what is computed with stays in the cache. Only the rows that the next row of tiles adds
    to are carried on. The integers are those of `tilemapper.raster.blend`: no order matters.

    Args:
        channels: of a prediction.
        dtype: int32 for predictions, int64 for their squares.
        starts: (n,) first column of each tile; the first one's is where ``inside`` counts from.
        weights: (n, tile) int32 along the columns.
        inside: the block's columns.
    """

    def __init__(
        self,
        channels: int,
        dtype: type[np.generic],
        starts: NDArray[np.int64],
        weights: NDArray[np.int32],
        inside: slice,
    ) -> None:
        tile = weights.shape[1]
        self._weights = weights.astype(dtype)
        self._places: list[_Place] = []
        filled = inside.start
        for start in (starts - starts[0]).tolist():
            first, end = max(start, inside.start), min(start + tile, inside.stop)
            shared = min(max(filled - first, 0), end - first)
            self._places.append(_Place(first - start, first - inside.start, shared, end - first))
            filled = max(filled, end)
        self._totals = np.zeros((channels, tile, inside.stop - inside.start), dtype)
        self._carried = self._totals[:, :0].copy()
        self._zero, self._carries = True, False  # what `_totals` and `_carried` hold
        self._product = np.empty((tile, tile), dtype)

    def add(
        self, tiles: Sequence[NDArray[np.integer] | None], down: NDArray[np.int32], done: int
    ) -> NDArray[Any]:
        """Adds a row of tiles and gives its sums, (channels, tile, width); overwritten by the next.

        Args:
            tiles: from left to right, each (channels, tile, tile); None counts as zeros.
            down: (tile,) weights along the rows.
            done: upper rows that no later tile adds to.
        """
        totals, some = self._totals, any(tile is not None for tile in tiles)
        if not some and not self._carries:  # half of a mosaic can be like that
            if not self._zero:
                totals[:], self._zero = 0, True
            return totals
        for tile, across, place in zip(tiles, self._weights, self._places, strict=True):
            self._put(tile, down[:, None] * across, place)
        totals[:, : self._carried.shape[1]] += self._carried
        if self._carried.shape[1] != totals.shape[1] - done:
            self._carried = np.empty_like(totals[:, done:])
        np.copyto(self._carried, totals[:, done:])
        self._zero, self._carries = False, some or bool(self._carried.any())
        return totals

    def _put(
        self, tile: NDArray[np.integer] | None, weights: NDArray[np.integer], place: _Place
    ) -> None:
        taken = slice(place.skipped, place.skipped + place.width)
        added = slice(place.col, place.col + place.shared)
        first = slice(place.col + place.shared, place.col + place.width)
        if tile is None:
            self._totals[:, :, first] = 0
            return
        product, weights = self._product[:, : place.width], weights[:, taken]
        for plane, total in zip(tile, self._totals, strict=True):
            product[:] = plane[:, taken]
            product *= weights
            total[:, added] += product[:, : place.shared]
            total[:, first] = product[:, place.shared :]
