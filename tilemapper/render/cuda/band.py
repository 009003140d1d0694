"""Exact blending on a device: the integers of `tilemapper.raster.blend`, and the seam's sums.

The same arithmetic as `tilemapper.render.block.blend_rows` and `tilemapper.render.seam.Seam`, in
torch: sums of integers, so the device can add them in any order and comes to the same values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.raster.blend import blend_along
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.seam import Seam


@dataclass(frozen=True)
class Frame:
    """Where the tiles of a block lie along both sides, the same for all its rows of tiles."""

    lattice: Lattice
    block: Block

    @property
    def columns(self) -> slice:
        """The tiles' place in the lattice's columns."""
        over = self.lattice.cols.tiles_over(self.block.col, self.block.col + self.block.width)
        return slice(over.start, over.stop)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(n,) first column of each tile, counted from the first tile's."""
        starts: NDArray[np.int64] = self.lattice.cols.starts[self.columns]
        return starts - starts[:1]

    @property
    def inside(self) -> slice:
        """The block's columns, counted from the first tile's."""
        first = self.block.col - int(self.lattice.cols.starts[self.columns.start])
        return slice(first, first + self.block.width)

    def finished(self, index: int) -> tuple[slice, int]:
        """After row ``index`` of tiles: rows of its band that are done and lie in the block.

        Returns:
            These rows, and how many rows the band moves on.
        """
        rows, block = self.lattice.rows, self.block
        top = int(rows.starts[index])
        done = self.lattice.tile
        if index != rows.tiles_over(block.row, block.row + block.height)[-1]:
            done = int(rows.starts[index + 1]) - top
        first = max(0, block.row - top)
        return slice(first, max(first, min(done, block.row + block.height - top))), done


class DeviceBand:
    """Running sums of one tile's height over a block's width, (channels, tile, width)."""

    def __init__(
        self, channels: int, dtype: torch.dtype, frame: Frame, device: torch.device
    ) -> None:
        self._frame, tile = frame, frame.lattice.tile
        self._weights = torch.from_numpy(frame.lattice.cols.weights[frame.columns]).to(device)
        self._down = torch.from_numpy(frame.lattice.rows.weights).to(device)
        width = int(frame.starts[-1]) + 2 * tile  # one tile wider: see blend_along
        self._line = torch.zeros((channels, tile, width), dtype=dtype, device=device)
        self.rows = torch.zeros((channels, tile, frame.block.width), dtype=dtype, device=device)

    def add(self, tiles: torch.Tensor, index: int) -> None:
        """Adds row ``index`` of tiles, (n, channels, tile, tile) integers 0..2040."""
        self._line.zero_()
        blend_along(self._line, tiles, self._weights, self._frame.starts)
        mixed = self._line[:, :, self._frame.inside]
        self.rows += mixed * self._down[index][None, :, None]

    def move(self, done: int) -> None:
        """Drops the ``done`` upper rows, which no tile can add to any more."""
        kept = self.rows[:, done:].clone()
        self.rows.zero_()
        self.rows[:, : kept.shape[1]] = kept


class DeviceSeam:
    """How far tiles side by side disagree: the sums of `Seam`, added up on the device."""

    def __init__(self, seam: Seam, frame: Frame, device: torch.device) -> None:
        self._seam, self._frame, self._device = seam, frame, device
        self._squares = torch.zeros((), dtype=torch.int64, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._colours: torch.Tensor | None = None
        if seam.colours is not None:
            self._colours = torch.from_numpy(seam.colours.astype(np.int32)).to(device)
        self._pairs = [self._pair_columns(apart) for apart in np.unique(np.diff(frame.starts))]

    def _pair_columns(self, apart: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        """Of the pairs so far apart: which, and their columns, (pairs, tile - apart)."""
        starts, inside = self._frame.starts, self._frame.inside
        left = np.flatnonzero(np.diff(starts) == apart)
        shared = max(0, self._frame.lattice.tile - int(apart))
        columns = starts[left + 1][:, None] + np.arange(shared)
        columns[(columns < inside.start) | (columns >= inside.stop)] = -1
        places = torch.from_numpy(left).to(self._device)
        return int(apart), places, torch.from_numpy(columns).to(self._device)

    def add(self, tiles: torch.Tensor, index: int, keep: torch.Tensor | None) -> None:
        """Adds the overlaps of row ``index``; ``keep`` as `Strip` has it, on the device."""
        lattice, block = self._frame.lattice, self._frame.block
        top = int(lattice.rows.starts[index])
        above = max(0, block.row - top)
        rows = slice(
            above + -(top + above) % 8, min(lattice.tile, block.row + block.height - top), 8
        )
        chosen = tiles[:, :, rows]
        if not chosen.shape[2]:
            return
        for apart, places, columns in self._pairs:
            if not columns.numel():
                continue
            # (pairs, channels, rows, shared)
            difference = (
                chosen[places][..., apart:].to(torch.int32)
                - chosen[places + 1][..., : chosen.shape[3] - apart]
            )
            counts = (columns >= 0)[:, None, None].expand(-1, 1, chosen.shape[2], -1)
            if keep is not None:
                kept = keep[rows][:, columns.clamp(min=0)]  # (rows, pairs, shared)
                counts = counts & kept.transpose(0, 1)[:, None]
            if self._colours is not None:
                shades = [(difference * c[:, None, None]).sum(1) for c in self._colours.T]
                difference = torch.stack(shades, 1)
            wide = difference.to(torch.int64) * counts
            self._squares += (wide * wide).sum()
            self._count += counts.sum() * difference.shape[1]

    def settle(self) -> None:
        """Adds the sums to the seam; waits for the device."""
        self._seam.squares += int(self._squares.item())
        self._seam.count += int(self._count.item())
