"""One block from its source window to finished pixels.

strips of the source ──► rows of tiles ──► rows of predictions ──► rows of exact sums ──► pixels

A block is a pure function of source, plan and model. Only a band of one tile's height is ever
held, so a block's memory grows with its width alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.blend import blend_along, to_grey
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.rows import PixelRows, PredictedRow, TileRow
from tilemapper.render.seam import Seam


class Predictor(Protocol):
    """What turns tiles into predictions: see `tilemapper.render.engine.Engine`."""

    channels: int
    batch_size: int
    lanes: int  # calls that may run at once, each in a thread of its own

    def enter_lane(self) -> None:
        """Called once in each of these threads."""
        ...

    def predict(self, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        """(batch_size, tile, tile, 3) uint8 to (batch_size, channels, tile, tile) 0..2040."""
        ...


def predict_rows(
    rows: Iterable[TileRow], engine: Predictor, tick: Callable[[int], None] | None = None
) -> Iterator[PredictedRow]:
    """Runs the active tiles through the generator in batches of one fixed shape.

    A batch goes on over the end of a row of tiles, so only a block's last batch is filled up.
    As many batches run at once as the engine has lanes. ``tick`` is called with the number of
    tiles of each batch.
    """
    waiting: deque[PredictedRow] = deque()
    running: deque[tuple[Future[NDArray[np.int16]], list[tuple[PredictedRow, int]]]] = deque()
    tiles: list[NDArray[np.uint8]] = []
    places: list[tuple[PredictedRow, int]] = []

    def settle() -> None:
        """Puts the oldest running batch's predictions where they belong."""
        future, where = running.popleft()
        for (row, place), prediction in zip(where, future.result(), strict=False):
            row.predictions[place] = prediction
            row.missing -= 1
        if tick is not None:
            tick(len(where))

    def submit() -> None:
        spare = engine.batch_size - len(tiles)
        batch = np.stack(tiles + [tiles[-1]] * spare)
        running.append((pool.submit(engine.predict, batch), places.copy()))
        tiles.clear()
        places.clear()
        # One batch more than can run, so that no lane waits for this thread.
        if len(running) > engine.lanes:
            settle()

    with ThreadPoolExecutor(engine.lanes, "forward", engine.enter_lane) as pool:
        for row in rows:
            shape = (len(row.tiles), engine.channels, *row.tiles.shape[1:3])
            empty = np.zeros(shape, np.int16)
            predicted = PredictedRow(row.index, row.keep, empty, len(row.active))
            waiting.append(predicted)
            for place in row.active:
                tiles.append(row.tiles[place])
                places.append((predicted, int(place)))
                if len(tiles) == engine.batch_size:
                    submit()
            while waiting and not waiting[0].missing:
                yield waiting.popleft()
        if tiles:
            submit()
        while running:
            settle()
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


def grey_rows(rows: PixelRows) -> NDArray[np.uint8]:
    """RGB of finished rows, (3, rows, width) uint8; pixels that are not kept are 0."""
    pixels: NDArray[np.uint8] = (
        to_grey(rows.totals).astype(np.uint8) if rows.picture is None else rows.picture
    )
    if not rows.keep.all():
        pixels *= rows.keep
    return pixels


def class_rows(rows: PixelRows) -> NDArray[np.uint8]:
    """Most likely class of finished rows, (rows, width) uint8; the first of equals wins."""
    if rows.picture is not None:
        classes: NDArray[np.uint8] = rows.picture[0]
        return classes
    best = rows.totals[0].copy()
    classes = np.zeros(best.shape, np.uint8)
    # numpy's argmax over the first axis strides through memory; this runs along it.
    for index, total in enumerate(rows.totals[1:], start=1):
        np.putmask(classes, total > best, index)
        np.maximum(best, total, out=best)
    return classes
