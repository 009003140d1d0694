"""One block on a device: strips of the source go up, finished bytes come down.

strips ──► band of the source ──► tiles ──► predictions ──► exact sums ──► bytes
host        device, rolling       device    device          device        host

The blend is that of `tilemapper.render.block`, so the same predictions give the same bytes. A
device without memory of its own, a CPU, runs the same lines: that is how they are tested.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.errors import DeviceError, TilemapperError
from tilemapper.raster.blend import to_grey
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.cuda.band import DeviceBand, DeviceSeam, Frame
from tilemapper.render.cuda.painter import Painter
from tilemapper.render.cuda.source import SourceStrips, Strip
from tilemapper.render.cuda.streams import Download
from tilemapper.render.engine import is_out_of_memory, unsound
from tilemapper.render.pipe import staged
from tilemapper.render.rows import PixelRows, rows_beside
from tilemapper.render.seam import Seam
from tilemapper.render.strips import View, lies_beside

AHEAD = 2  # finished rows of tiles on their way down, so that the device never waits for the host


@contextlib.contextmanager
def device_rows(
    lattice: Lattice,
    block: Block,
    view: View,
    painter: Painter,
    *,
    mean: tuple[int, int, int],
    seam: Seam,
    tick: Callable[[int], None] | None = None,
    sums: bool = False,
    squares: bool = False,
) -> Iterator[Iterator[PixelRows]]:
    """A block's pixels from top to bottom, as `tilemapper.render.render.finished_rows` has them.

    Of a block that lies beside the area of interest nothing is read, nor does the device hear.

    Args:
        lattice: of the whole raster.
        block: which part of it.
        view: where the pixels come from.
        painter: the generator on its device.
        mean: fills a tile in which nothing is valid.
        seam: takes the block's sums when its last row is out.
        tick: called with the number of tiles of each batch.
        sums: the sums come down too, four bytes a channel: layers of uncertainty want them.
        squares: and the sums of weighted squares.

    Raises:
        RasterError, DeviceError, ModelError: from the reader of the rows.
    """
    if lies_beside(view, block):
        yield rows_beside(block, painter.channels, squares=squares)
        return
    strips = SourceStrips(view, lattice, block, mean)
    with staged(strips, depth=2, name="read") as ready:
        with _fitting(painter.device, block):
            path = _Path(strips, Frame(lattice, block), painter, seam, tick, sums, squares)
        with staged(path.run(ready), depth=1, name="device") as rows:
            yield rows


@contextlib.contextmanager
def _fitting(device: torch.device, block: Block) -> Iterator[None]:
    """Says what to do where there is memory for the generator, but not for a block's sums."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, TilemapperError) or not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{device}: not enough memory for a block of {block.width} px; free some, or use a "
            "smaller --block"
        ) from error


@dataclass
class _Row:
    """A row of tiles on the device."""

    index: int
    keep: NDArray[np.bool_] | None
    active: torch.Tensor | None  # where its active tiles are; None when all are
    predictions: torch.Tensor  # (n, channels, tile, tile) int16
    filled: int = 0  # active tiles that have their prediction
    count: int = 0  # active tiles


@dataclass
class _Finished:
    """Rows of pixels on their way down."""

    keep: NDArray[np.bool_]
    picture: Download | None
    totals: Download | None
    squares: Download | None

    def rows(self, channels: int) -> PixelRows:
        """The rows, once they are there."""
        nothing = np.empty((channels, 0, 0), np.int32)
        return PixelRows(
            nothing if self.totals is None else self.totals.numpy(),
            self.keep,
            None if self.squares is None else self.squares.numpy()[0],
            None if self.picture is None else self.picture.numpy(),
        )


class _Path:
    """What one block holds on the device, and its way through it."""

    def __init__(
        self,
        strips: SourceStrips,
        frame: Frame,
        painter: Painter,
        seam: Seam,
        tick: Callable[[int], None] | None,
        sums: bool,
        squares: bool,
    ) -> None:
        self._frame, self._painter, self._tick = frame, painter, tick
        self._streams, self._sums = painter.streams, sums or squares
        self._tile, device = frame.lattice.tile, painter.device
        with self._streams.computing():
            columns = strips.columns[frame.starts[:, None] + np.arange(self._tile)]
            self._columns = torch.from_numpy(columns).to(device)  # (n, tile)
            self._source = torch.empty((3, 0, 0), dtype=torch.uint8, device=device)
            self._band = DeviceBand(painter.channels, torch.int32, frame, device)
            self._powers = DeviceBand(1, torch.int64, frame, device) if squares else None
            self._seam = DeviceSeam(seam, frame, device)
            self._sound = torch.ones((), dtype=torch.bool, device=device)
        self._rows: deque[_Row] = deque()
        self._tiles: list[torch.Tensor] = []  # waiting for their batch, in order
        self._waiting = 0

    def run(self, strips: Iterator[Strip]) -> Iterator[PixelRows]:
        """Finished rows of pixels, from top to bottom."""
        with _fitting(self._painter.device, self._frame.block):
            yield from self._rows_of(strips)

    def _rows_of(self, strips: Iterator[Strip]) -> Iterator[PixelRows]:
        going_down: deque[_Finished] = deque()
        channels = self._painter.channels
        for strip in strips:
            going_down.extend(self._take(strip))
            while len(going_down) > AHEAD:
                yield going_down.popleft().rows(channels)
        going_down.extend(self._end())
        while going_down:
            yield going_down.popleft().rows(channels)
        with self._streams.computing():
            self._seam.settle()
            if not self._sound.item():
                raise unsound(self._painter.engine.model)

    # No context outlives a call: another thread may be the one that ends the generator.

    @torch.inference_mode()
    def _take(self, strip: Strip) -> list[_Finished]:
        """Cuts the strip's tiles, runs what batches are full, and blends what rows are whole."""
        with self._streams.computing():
            self._cut(strip)
            while self._waiting >= self._painter.batch_size:
                self._run_batch()
            return self._blend_whole_rows()

    @torch.inference_mode()
    def _end(self) -> list[_Finished]:
        with self._streams.computing():
            if self._waiting:
                self._run_batch()
            return self._blend_whole_rows()

    def _cut(self, strip: Strip) -> None:
        fresh = self._streams.upload(strip.fresh)
        kept = self._source[:, strip.dropped :]
        self._source = torch.cat([kept, fresh], 1) if kept.shape[1] else fresh
        n, tile, device = len(self._columns), self._tile, self._painter.device
        everywhere = len(strip.active) == n
        active = None if everywhere else self._streams.upload(strip.active)
        columns = self._columns if active is None else self._columns[active]
        rows = self._source.index_select(1, self._streams.upload(strip.rows))
        tiles = rows.index_select(2, columns.flatten()).view(3, tile, -1, tile)
        tiles = tiles.permute(2, 1, 3, 0).contiguous()  # (active, tile, tile, 3)
        if strip.patches is not None:
            where, filled = strip.patches
            tiles.index_copy_(0, self._streams.upload(where), self._streams.upload(filled))
        shape = (n, self._painter.channels, tile, tile)
        make = torch.empty if everywhere else torch.zeros
        predictions = make(shape, dtype=torch.int16, device=device)
        count = len(strip.active)
        self._rows.append(_Row(strip.index, strip.keep, active, predictions, count=count))
        if count:
            self._tiles.append(tiles)
            self._waiting += count

    def _run_batch(self) -> None:
        """Runs the oldest tiles, at most a batch, and puts their predictions into their rows."""
        tiles = self._tiles[0] if len(self._tiles) == 1 else torch.cat(self._tiles)
        size = self._painter.batch_size
        real = min(size, len(tiles))
        batch, rest = tiles[:real], tiles[real:]
        if real < size:
            batch = torch.cat([batch, batch[-1:].expand(size - real, -1, -1, -1)])
        predictions, finite = self._painter.paint(batch)
        self._sound &= finite
        taken = 0
        for row in self._rows:
            part = predictions[taken : min(taken + row.count - row.filled, real)]
            places = slice(row.filled, row.filled + len(part))
            if row.active is None:
                row.predictions[places] = part
            elif len(part):
                row.predictions.index_copy_(0, row.active[places], part)
            row.filled += len(part)
            taken += len(part)
            if taken == real:
                break
        self._tiles = [rest] if len(rest) else []
        self._waiting -= real
        if self._tick is not None:
            self._tick(real)

    def _blend_whole_rows(self) -> list[_Finished]:
        finished = []
        while self._rows and self._rows[0].filled == self._rows[0].count:
            finished += self._blend(self._rows.popleft())
        return finished

    def _blend(self, row: _Row) -> list[_Finished]:
        self._band.add(row.predictions, row.index)
        if self._powers is not None:
            wide = row.predictions.to(torch.int64)
            self._powers.add((wide * wide).sum(1, keepdim=True), row.index)
        keep = None if row.keep is None else self._streams.upload(row.keep)
        self._seam.add(row.predictions, row.index, keep)
        rows, done = self._frame.finished(row.index)
        down = self._streams.download
        finished = []
        if rows.stop > rows.start:
            totals = self._band.rows[:, rows]
            shape = (rows.stop - rows.start, self._frame.block.width)
            kept = np.ones(shape, bool) if row.keep is None else row.keep[rows, self._frame.inside]
            if self._sums:
                powers = self._powers
                squares = None if powers is None else down(powers.rows[:, rows].clone())
                finished.append(_Finished(kept, None, down(totals.clone()), squares))
            else:
                finished.append(_Finished(kept, down(self._picture(totals)), None, None))
        for band in (self._band, self._powers):
            if band is not None:
                band.move(done)
        return finished

    def _picture(self, totals: torch.Tensor) -> torch.Tensor:
        """(3, rows, width) grey levels, or (1, rows, width) classes, uint8."""
        if not self._painter.engine.is_palette:
            return to_grey(totals).to(torch.uint8)  # type: ignore[no-any-return]
        best, classes = totals[0], torch.zeros_like(totals[0], dtype=torch.uint8)
        for index in range(1, len(totals)):  # the first of equals wins, as on the host
            better = totals[index] > best
            classes.masked_fill_(better, index)
            best = torch.maximum(best, totals[index])
        return classes[None]
