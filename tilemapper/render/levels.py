"""Pixels to what a network takes, and what it gives to whole eighths of a grey level.

In torch, without a look at any value: so the same lines run inside a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tilemapper.raster.blend import TOP

_ROWS = 32  # of a tile: half a megabyte of 15 classes in float32


def to_network(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(n, tile, tile, 3) uint8 to (n, 3, tile, tile) in [-1, 1], channels_last."""
    # In memory that already is channels_last: nothing is moved. Bytes and their distances from
    # 127.5 are exact in bf16 too; only the division rounds.
    return pixels.permute(0, 3, 1, 2).to(dtype).sub_(127.5).div_(127.5)


def to_levels(output: torch.Tensor, *, palette: bool) -> torch.Tensor:
    """RGB in [-1, 1] or class logits to (n, channels, tile, tile) int16, 0..2040."""
    if palette and output.device.type == "cpu":
        return _shares_in_cache(output)
    # One class after another in memory: softmax is twice as fast so, and blending wants it so.
    output = output.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    # In place from here on: fresh memory for every step would cost as much as the arithmetic.
    if palette:
        levels = output.softmax(dim=1).mul_(TOP)
    else:
        levels = torch.add(output.new_full((), TOP / 2), output, alpha=TOP / 2, out=output)
    return levels.round_().clamp_(0, TOP).to(torch.int16)


def _shares_in_cache(logits: torch.Tensor) -> torch.Tensor:
    """`to_levels` of logits on a CPU, a few rows at a time: 15 classes of a batch are 16 MB."""
    levels = torch.empty(logits.shape, dtype=torch.int16)
    for tile, done in zip(logits, levels, strict=True):
        for at in range(0, tile.shape[1], _ROWS):
            rows = tile[:, at : at + _ROWS]
            rows = rows.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
            share = rows.flatten(1).softmax(dim=0).mul_(TOP).round_()
            done[:, at : at + _ROWS] = share.view(rows.shape)
    return levels


def painted(
    network: nn.Module, pixels: torch.Tensor, *, dtype: torch.dtype, palette: bool, tta: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes to predictions, all on the device they are on.

    Args:
        network: (n, 3, tile, tile) to RGB or logits.
        pixels: (n, tile, tile, 3) uint8.
        dtype: in which the network computes.
        palette: whether it gives logits.
        tta: the mean over the 8 symmetries.

    Returns:
        (n, channels, tile, tile) int16, 0..2040, and whether all values were finite, () bool.
    """
    sound: list[torch.Tensor] = []

    def paint(batch: torch.Tensor) -> torch.Tensor:
        output = network(batch)
        sound.append(torch.isfinite(output.sum()))
        return to_levels(output, palette=palette)

    batch = to_network(pixels, dtype)
    levels = mean_of_symmetries(paint, batch) if tta else paint(batch)
    return levels, torch.stack(sound).all()


def mean_of_symmetries(
    paint: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor
) -> torch.Tensor:
    """Mean over the 8 symmetries of the square, rounded once: imagery from above has no up."""
    total = torch.zeros((), dtype=torch.int16, device=batch.device)
    for turns in range(4):
        turned = batch.rot90(turns, (2, 3))
        for flipped in (turned, turned.flip(3)):
            levels = paint(flipped.contiguous(memory_format=torch.channels_last))
            back = levels if flipped is turned else levels.flip(3)
            total = total + back.rot90(-turns, (2, 3))
    return (total + 4) >> 3
