"""One block from its source window to finished pixels.

strips of the source ──► rows of tiles ──► rows of predictions ──► rows of exact sums ──► pixels

A block is a pure function of source, plan and model. Only a band of one tile's height is ever
held, so a block's memory grows with its width alone.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.blend import blend_along, to_grey
from tilemapper.raster.fill import fill_invalid
from tilemapper.raster.lattice import Block, Lattice, reflect


class View(Protocol):
    """What a block reads from: see `tilemapper.raster.source.SourceView`."""

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) uint8 and validity (height, width) bool of a window."""
        ...

    def wanted(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Pixels inside the area of interest, (height, width) bool; None when all are."""
        ...


class Predictor(Protocol):
    """What turns tiles into predictions: see `tilemapper.render.engine.Engine`."""

    channels: int
    batch_size: int

    def predict(self, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        """(batch_size, tile, tile, 3) uint8 to (batch_size, channels, tile, tile) 0..2040."""
        ...


@dataclass
class TileRow:
    """The tiles of one row of the lattice that a block needs."""

    index: int
    tiles: NDArray[np.uint8]  # (n, tile, tile, 3), filled where invalid
    active: NDArray[np.int64]  # which of them have a pixel worth rendering
    keep: NDArray[np.bool_]  # (tile, width): pixels that are valid and wanted


@dataclass
class PredictedRow:
    """The predictions of one row of tiles; those that were not run are zero."""

    index: int
    keep: NDArray[np.bool_]
    predictions: NDArray[np.int16]  # (n, channels, tile, tile) 0..2040
    missing: int = field(default=0)  # tiles still to come


@dataclass
class PixelRows:
    """Finished rows of a block, in order from top to bottom."""

    totals: NDArray[np.int32]  # (channels, rows, width): sums of weighted predictions
    keep: NDArray[np.bool_]  # (rows, width)
    squares: NDArray[np.int64] | None = None  # (rows, width): sums of weighted squares, all bands


def read_tile_rows(
    view: View, lattice: Lattice, block: Block, mean: tuple[int, int, int]
) -> Iterator[TileRow]:
    """Reads a block strip by strip, each source row once, and cuts it into rows of tiles."""
    columns = lattice.cols.tiles_over(block.col, block.col + block.width)
    starts = lattice.cols.starts[columns.start : columns.stop]
    tile = lattice.tile
    across = np.arange(starts[0], starts[-1] + tile)
    strip = _Strip(view, lattice, across)
    for index in lattice.rows.tiles_over(block.row, block.row + block.height):
        strip.move_to(int(lattice.rows.starts[index]))
        cuts = [slice(start, start + tile) for start in starts - starts[0]]
        tiles = np.stack([strip.rgb[:, cut] for cut in cuts])
        keep = strip.valid if strip.wanted is None else strip.valid & strip.wanted
        active = np.flatnonzero([keep[:, cut].any() for cut in cuts])
        if not strip.valid.all():
            valid = np.stack([strip.valid[:, cut] for cut in cuts])
            tiles[active] = fill_invalid(tiles[active], valid[active], mean)
        yield TileRow(index, tiles, active, keep.copy())


class _Strip:
    """A rolling strip of one tile's height: rows that two rows of tiles share are kept."""

    def __init__(self, view: View, lattice: Lattice, across: NDArray[np.int64]) -> None:
        self._view, self._height, self._tile = view, lattice.height, lattice.tile
        columns = reflect(across, lattice.width)
        self._col, self._width = int(columns.min()), int(np.ptp(columns)) + 1
        # Columns inside the raster are one slice; only the rims, if any, are gathered.
        inside = np.flatnonzero((across >= 0) & (across < lattice.width))
        self._inside = slice(int(inside[0]), int(inside[-1]) + 1)
        self._first = int(across[inside[0]]) - self._col
        rim = np.flatnonzero((across < 0) | (across >= lattice.width))
        self._rim, self._rim_columns = rim, columns[rim] - self._col
        self._start: int | None = None
        self.rgb = np.empty((self._tile, len(across), 3), np.uint8)
        self.valid = np.empty((self._tile, len(across)), bool)
        self.wanted: NDArray[np.bool_] | None = None

    def move_to(self, start: int) -> None:
        """Makes the strip hold the rows [start, start + tile)."""
        kept = 0 if self._start is None else max(0, self._start + self._tile - start)
        if kept:
            self.rgb[:kept] = self.rgb[-kept:].copy()
            self.valid[:kept] = self.valid[-kept:].copy()
            if self.wanted is not None:
                self.wanted[:kept] = self.wanted[-kept:].copy()
        self._start = start
        self._read(kept, np.arange(start + kept, start + self._tile))

    def _read(self, at: int, rows: NDArray[np.int64]) -> None:
        rows = reflect(rows, self._height)
        window = {
            "row": int(rows.min()),
            "col": self._col,
            "height": int(np.ptp(rows)) + 1,
            "width": self._width,
        }
        rgb, valid = self._view.read(**window)
        wanted = self._view.wanted(**window)
        rows = rows - window["row"]
        self._place(self.rgb[at:], rgb, rows)
        self._place(self.valid[at:], valid, rows)
        if wanted is not None:
            if self.wanted is None:
                self.wanted = np.empty_like(self.valid)
            self._place(self.wanted[at:], wanted, rows)

    def _place(
        self, out: NDArray[np.generic], pixels: NDArray[np.generic], rows: NDArray[np.int64]
    ) -> None:
        """Puts what was read into the strip, mirrored where the strip reaches beyond the raster."""
        if (np.diff(rows) != 1).any():
            pixels = pixels[rows]
        width = self._inside.stop - self._inside.start
        out[:, self._inside] = pixels[:, self._first : self._first + width]
        if len(self._rim):
            out[:, self._rim] = pixels[:, self._rim_columns]


def predict_rows(
    rows: Iterable[TileRow], engine: Predictor, tick: Callable[[int], None] | None = None
) -> Iterator[PredictedRow]:
    """Runs the active tiles through the generator in batches of one fixed shape.

    A batch goes on over the end of a row of tiles, so only a block's last batch is filled up.
    ``tick`` is called with the number of tiles of each batch.
    """
    waiting: deque[PredictedRow] = deque()
    tiles: list[NDArray[np.uint8]] = []
    places: list[tuple[PredictedRow, int]] = []

    def run() -> None:
        count = len(tiles)
        batch = np.stack(tiles + [tiles[-1]] * (engine.batch_size - count))
        for (row, place), prediction in zip(places, engine.predict(batch), strict=False):
            row.predictions[place] = prediction
            row.missing -= 1
        if tick is not None:
            tick(count)
        tiles.clear()
        places.clear()

    for row in rows:
        shape = (len(row.tiles), engine.channels, *row.tiles.shape[1:3])
        predicted = PredictedRow(row.index, row.keep, np.zeros(shape, np.int16), len(row.active))
        waiting.append(predicted)
        for place in row.active:
            tiles.append(row.tiles[place])
            places.append((predicted, int(place)))
            if len(tiles) == engine.batch_size:
                run()
        while waiting and not waiting[0].missing:
            yield waiting.popleft()
    if tiles:
        run()
    yield from waiting


def blend_rows(
    rows: Iterable[PredictedRow],
    lattice: Lattice,
    block: Block,
    seam: Seam | None = None,
    *,
    squares: bool = False,
) -> Iterator[PixelRows]:
    """Blends rows of predictions and yields the block's pixels as soon as no tile can add to them.

    Every pixel of the block is yielded once, in order. ``seam`` collects how far overlapping
    tiles disagree; ``squares`` asks for the sums of weighted squares too.
    """
    columns = lattice.cols.tiles_over(block.col, block.col + block.width)
    starts = lattice.cols.starts[columns.start : columns.stop]
    weights = lattice.cols.weights[columns.start : columns.stop]
    inside = slice(block.col - int(starts[0]), block.col - int(starts[0]) + block.width)
    last = lattice.rows.tiles_over(block.row, block.row + block.height)[-1]
    sums: _Band | None = None
    powers = _Band(1, np.int64, starts, weights, lattice.tile, inside) if squares else None
    for row in rows:
        if sums is None:
            channels = row.predictions.shape[1]
            sums = _Band(channels, np.int32, starts, weights, lattice.tile, inside)
        down = lattice.rows.weights[row.index]
        sums.add(row.predictions, down)
        if powers is not None:
            tiles = row.predictions.astype(np.int64)
            powers.add(np.einsum("nchw,nchw->nhw", tiles, tiles)[:, None], down)
        if seam is not None:
            seam.add(row, lattice, block, starts)
        top = int(lattice.rows.starts[row.index])
        done = lattice.tile
        if row.index != last:
            done = int(lattice.rows.starts[row.index + 1]) - top
        first = max(0, block.row - top)
        end = min(done, block.row + block.height - top)
        if end > first:
            yield PixelRows(
                sums.rows[:, first:end].copy(),
                row.keep[first:end, inside],
                None if powers is None else powers.rows[0, first:end].copy(),
            )
        sums.move(done)
        if powers is not None:
            powers.move(done)


class _Band:
    """Running sums of one tile's height over a block's width, (channels, tile, width)."""

    def __init__(
        self,
        channels: int,
        dtype: type[np.generic],
        starts: NDArray[np.int64],
        weights: NDArray[np.int32],
        tile: int,
        inside: slice,
    ) -> None:
        self._starts, self._weights, self._inside = starts - starts[0], weights, inside
        self.rows = np.zeros((channels, tile, inside.stop - inside.start), dtype)
        # One tile wider than what the tiles cover: see blend_along.
        self._line = np.empty((channels, tile, int(self._starts[-1]) + 2 * tile), dtype)

    def add(self, tiles: NDArray[np.integer], down: NDArray[np.int32]) -> None:
        """Adds a row of tiles, (n, channels, tile, tile); ``down``: weights along its rows."""
        self._line[:] = 0
        blend_along(self._line, tiles, self._weights, self._starts)
        mixed = self._line[:, :, self._inside]
        mixed *= down[None, :, None]
        self.rows += mixed

    def move(self, done: int) -> None:
        """Drops the ``done`` upper rows, which no tile can add to any more."""
        kept = self.rows.shape[1] - done
        self.rows[:, :kept] = self.rows[:, done:]
        self.rows[:, kept:] = 0


@dataclass
class Seam:
    """Overlap disagreement: how far tiles side by side differ where they overlap.

    Only kept pixels of a block count, so that sums over blocks do not depend on their size. The
    sums are of whole numbers: eighths of a grey level, times 255 for palette models, of which the
    expected colours are compared.
    """

    colours: NDArray[np.int32] | None = None  # (classes, 3) of a palette model
    squares: int = 0
    count: int = 0

    def add(
        self, row: PredictedRow, lattice: Lattice, block: Block, starts: NDArray[np.int64]
    ) -> None:
        """Adds the overlaps of one row of tiles; ``starts`` are those of its columns."""
        top = int(lattice.rows.starts[row.index])
        # Every eighth row of the raster, wherever blocks begin: more would cost 1 % of a render.
        above = max(0, block.row - top)
        rows = slice(
            above + -(top + above) % 8, min(lattice.tile, block.row + block.height - top), 8
        )
        for place, (left, right) in enumerate(itertools.pairwise(starts)):
            first = max(int(right), block.col)
            end = min(int(left) + lattice.tile, block.col + block.width)
            keep = row.keep[rows, first - int(starts[0]) : max(first, end) - int(starts[0])]
            if not keep.any():
                continue
            tile, neighbour = row.predictions[place], row.predictions[place + 1]
            difference = (
                tile[:, rows, first - left : end - left]
                - neighbour[:, rows, first - right : end - right]
            )[:, keep].astype(np.int32)
            if self.colours is not None:
                difference = self.colours.T @ difference
            # Whole numbers below 2**53 in float64: the sum is exact in any order.
            wide = difference.astype(np.float64)
            self.squares += int(np.einsum("ij,ij->", wide, wide))
            self.count += wide.size


def grey_rows(rows: PixelRows) -> NDArray[np.uint8]:
    """RGB of finished rows, (3, rows, width) uint8; pixels that are not kept are 0."""
    pixels: NDArray[np.uint8] = to_grey(rows.totals).astype(np.uint8)
    if not rows.keep.all():
        pixels *= rows.keep
    return pixels


def class_rows(rows: PixelRows) -> NDArray[np.uint8]:
    """Most likely class of finished rows, (rows, width) uint8; the first of equals wins."""
    classes: NDArray[np.uint8] = rows.totals.argmax(axis=0).astype(np.uint8)
    return classes
