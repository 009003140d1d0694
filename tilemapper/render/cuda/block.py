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

import numpy as np
import torch

from tilemapper.errors import DeviceError, TilemapperError
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.cuda.band import Frame
from tilemapper.render.cuda.batches import Batches, DeviceRow
from tilemapper.render.cuda.finished import Blend, Finished
from tilemapper.render.cuda.painter import Painter
from tilemapper.render.cuda.source import SourceStrips, Strip
from tilemapper.render.engine import is_out_of_memory
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
    """A block's pixels from top to bottom, as `tilemapper.render.blocks.finished_rows` has them.

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
        with _fitting(painter.device, block), painter.streams.computing():
            frame = Frame(lattice, block)
            batches = Batches(painter, tick)
            blend = Blend(painter, frame, seam, sums=sums, squares=squares)
            path = _Path(strips, frame, painter, batches, blend)
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


class _Path:
    """A block's way through the device: strips are cut into tiles, painted, and blended.

    To be made inside `Streams.computing`, as all that it is made of.
    """

    def __init__(
        self,
        strips: SourceStrips,
        frame: Frame,
        painter: Painter,
        batches: Batches,
        blend: Blend,
    ) -> None:
        self._frame, self._painter, self._streams = frame, painter, painter.streams
        self._batches, self._blend = batches, blend
        self._tile, device = frame.lattice.tile, painter.device
        columns = strips.columns[frame.starts[:, None] + np.arange(self._tile)]
        self._columns = torch.from_numpy(columns).to(device)  # (n, tile)
        self._source = torch.empty((3, 0, 0), dtype=torch.uint8, device=device)

    def run(self, strips: Iterator[Strip]) -> Iterator[PixelRows]:
        """Finished rows of pixels, from top to bottom."""
        with _fitting(self._painter.device, self._frame.block):
            yield from self._rows_of(strips)

    def _rows_of(self, strips: Iterator[Strip]) -> Iterator[PixelRows]:
        going_down: deque[Finished] = deque()
        channels = self._painter.channels
        for strip in strips:
            going_down.extend(self._take(strip))
            while len(going_down) > AHEAD:
                yield going_down.popleft().rows(channels)
        going_down.extend(self._take(None))
        while going_down:
            yield going_down.popleft().rows(channels)
        with self._streams.computing():
            self._blend.settle()
            self._batches.check()

    # No context outlives a call: another thread may be the one that ends the generator.

    @torch.inference_mode()
    def _take(self, strip: Strip | None) -> list[Finished]:
        """Takes the tiles of one more strip, paints what batches are full, blends what is whole.

        After the last strip, for None, what is left of a batch is filled up and painted too.
        """
        with self._streams.computing():
            if strip is not None:
                self._batches.add(*self._cut(strip))
            blended = map(self._blend.add, self._batches.run(rest=strip is None))
            return [finished for finished in blended if finished is not None]

    def _cut(self, strip: Strip) -> tuple[DeviceRow, torch.Tensor]:
        """A row of tiles without predictions, and its active tiles, (active, tile, tile, 3)."""
        fresh = self._streams.upload(strip.fresh)
        kept = self._source[:, strip.dropped :]
        self._source = torch.cat([kept, fresh], 1) if kept.shape[1] else fresh
        n, tile, device = len(self._columns), self._tile, self._painter.device
        everywhere = len(strip.active) == n
        active = None if everywhere else self._streams.upload(strip.active)
        columns = self._columns if active is None else self._columns[active]
        rows = self._source.index_select(1, self._streams.upload(strip.rows))
        tiles = rows.index_select(2, columns.flatten()).view(3, tile, -1, tile)
        tiles = tiles.permute(2, 1, 3, 0).contiguous()
        if strip.patches is not None:
            where, filled = strip.patches
            tiles.index_copy_(0, self._streams.upload(where), self._streams.upload(filled))
        shape = (n, self._painter.channels, tile, tile)
        make = torch.empty if everywhere else torch.zeros
        predictions = make(shape, dtype=torch.int16, device=device)
        return DeviceRow(strip.index, strip.keep, active, predictions, len(strip.active)), tiles
