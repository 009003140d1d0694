"""Rows of tiles on a device, until all their tiles have a prediction.

A batch goes on over the end of a row of tiles, so only a block's last batch is filled up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.render.cuda.painter import Painter
from tilemapper.render.engine import unsound


@dataclass
class DeviceRow:
    """A row of tiles on the device."""

    index: int
    keep: NDArray[np.bool_] | None
    active: torch.Tensor | None  # where its active tiles are; None when all are
    predictions: torch.Tensor  # (n, channels, tile, tile) int16
    count: int  # active tiles
    filled: int = 0  # of these, how many have their prediction


class Batches:
    """The rows of one block that wait for their predictions, from top to bottom.

    To be made, and its methods called, inside `Streams.computing`.
    """

    def __init__(self, painter: Painter, tick: Callable[[int], None] | None) -> None:
        self._painter, self._tick = painter, tick
        self._rows: deque[DeviceRow] = deque()
        self._tiles: list[torch.Tensor] = []  # waiting for their batch, in order
        self._waiting = 0
        self._sound = torch.ones((), dtype=torch.bool, device=painter.device)

    def add(self, row: DeviceRow, tiles: torch.Tensor) -> None:
        """Takes a row whose predictions are still to come, and its active tiles.

        tiles: (active, tile, tile, 3) uint8; the row's inactive ones must be zero already.
        """
        self._rows.append(row)
        if len(tiles):
            self._tiles.append(tiles)
            self._waiting += len(tiles)

    def run(self, *, rest: bool = False) -> Iterator[DeviceRow]:
        """Runs what batches are full, or with ``rest`` all; gives the rows that are whole then."""
        while self._waiting >= self._painter.batch_size or (rest and self._waiting):
            self._run_batch()
        while self._rows and self._rows[0].filled == self._rows[0].count:
            yield self._rows.popleft()

    def check(self) -> None:
        """Waits for the device, and refuses predictions that were not finite with a ModelError."""
        if not self._sound.item():
            raise unsound(self._painter.engine.model)

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
