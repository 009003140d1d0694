"""One block from its source window to finished pixels.

strips of the source ──► rows of tiles ──► rows of predictions ──► rows of exact sums ──► pixels

A block is a pure function of source, plan and model. Only a band of one tile's height is ever
held, so a block's memory grows with its width alone.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.blend import to_grey
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.rows import PixelRows, PredictedRow, TileRow
from tilemapper.render.seam import Seam
from tilemapper.render.sums import RowSums


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
            predicted = PredictedRow(
                row.index, row.keep, [None] * len(row.tiles), engine.channels, len(row.active)
            )
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
    lent: bool = False,
) -> Iterator[PixelRows]:
    """Blends rows of predictions and yields the block's pixels as soon as no tile can add to them.

    Every pixel of the block is yielded once, in order. ``seam`` collects how far overlapping tiles
    disagree; ``squares`` asks for the sums of weighted squares too. ``lent`` sums are not copied,
    and overwritten when the next rows are asked for.
    """
    columns = lattice.cols.tiles_over(block.col, block.col + block.width)
    starts = lattice.cols.starts[columns.start : columns.stop]
    weights = lattice.cols.weights[columns.start : columns.stop]
    inside = slice(block.col - int(starts[0]), block.col - int(starts[0]) + block.width)
    last = lattice.rows.tiles_over(block.row, block.row + block.height)[-1]
    sums: RowSums | None = None
    powers = RowSums(1, np.int64, starts, weights, inside) if squares else None
    for row in rows:
        if sums is None:
            sums = RowSums(row.channels, np.int32, starts, weights, inside)
        down = lattice.rows.weights[row.index]
        top = int(lattice.rows.starts[row.index])
        done = lattice.tile
        if row.index != last:
            done = int(lattice.rows.starts[row.index + 1]) - top
        totals = sums.add(row.predictions, down, done)
        powered = None
        if powers is not None:
            powered = powers.add([_squared(one) for one in row.predictions], down, done)
        if seam is not None:
            seam.add(row, lattice, block, starts)
        first = max(0, block.row - top)
        end = min(done, block.row + block.height - top)
        if end > first:
            part = PixelRows(
                totals[:, first:end],
                row.keep[first:end, inside],
                None if powered is None else powered[0, first:end],
            )
            yield part if lent else copy.deepcopy(part)


def _squared(tile: NDArray[np.int16] | None) -> NDArray[np.int64] | None:
    """Sum of squares over the channels, (1, tile, tile)."""
    if tile is None:
        return None
    wide = tile.astype(np.int64)
    power: NDArray[np.int64] = np.einsum("chw,chw->hw", wide, wide)[None]
    return power


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
    classes = np.empty(rows.totals.shape[1:], np.uint8)
    # A few rows at a time: what is compared stays in the cache.
    for at in range(0, len(classes), 8):
        totals, part = rows.totals[:, at : at + 8], classes[at : at + 8]
        best = totals[0].copy()
        part[:] = 0
        for index, total in enumerate(totals[1:], start=1):
            # The last class that beat all before it is the first of the largest.
            ahead = (total > best).view(np.uint8)
            np.maximum(best, total, out=best)
            ahead *= np.uint8(index)
            np.maximum(part, ahead, out=part)
    return classes
