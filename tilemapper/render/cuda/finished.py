"""Whole rows of tiles become sums on a device, and what is finished of these comes down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.raster.blend import to_grey
from tilemapper.render.cuda.band import DeviceBand, DeviceSeam, Frame
from tilemapper.render.cuda.batches import DeviceRow
from tilemapper.render.cuda.painter import Painter
from tilemapper.render.cuda.streams import Download
from tilemapper.render.rows import PixelRows
from tilemapper.render.seam import Seam


@dataclass
class Finished:
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


class Blend:
    """The sums of one block: whole rows of tiles go in, finished rows of pixels come out.

    To be made, and its methods called, inside `Streams.computing`.
    """

    def __init__(
        self, painter: Painter, frame: Frame, seam: Seam, *, sums: bool, squares: bool
    ) -> None:
        self._painter, self._frame, self._sums = painter, frame, sums or squares
        device = painter.device
        self._band = DeviceBand(painter.channels, torch.int32, frame, device)
        self._powers = DeviceBand(1, torch.int64, frame, device) if squares else None
        self._seam = DeviceSeam(seam, frame, device)

    def add(self, row: DeviceRow) -> Finished | None:
        """Adds a row of tiles; the rows of the block that are finished by it, if any."""
        self._band.add(row.predictions, row.index)
        if self._powers is not None:
            wide = row.predictions.to(torch.int64)
            self._powers.add((wide * wide).sum(1, keepdim=True), row.index)
        keep = None if row.keep is None else self._painter.streams.upload(row.keep)
        self._seam.add(row.predictions, row.index, keep)
        rows, done = self._frame.finished(row.index)
        finished = self._going_down(rows, row.keep) if rows.stop > rows.start else None
        for band in (self._band, self._powers):
            if band is not None:
                band.move(done)
        return finished

    def settle(self) -> None:
        """Adds the block's sums to its seam; waits for the device."""
        self._seam.settle()

    def _going_down(self, rows: slice, keep: NDArray[np.bool_] | None) -> Finished:
        down, totals = self._painter.streams.download, self._band.rows[:, rows]
        shape = (rows.stop - rows.start, self._frame.block.width)
        kept = np.ones(shape, bool) if keep is None else keep[rows, self._frame.inside]
        if not self._sums:
            return Finished(kept, down(self._picture(totals)), None, None)
        squares = None if self._powers is None else down(self._powers.rows[:, rows].clone())
        return Finished(kept, None, down(totals.clone()), squares)

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
