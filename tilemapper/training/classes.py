"""The palette of a head: from colours to the nearest class, and back to colours."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilemapper.networks.model import PaletteClass
from tilemapper.training.class_loss import IGNORED

# A pixel farther from every colour than this (largest band) is a label or a watermark.
FARTHEST = 24
# Seven bits a band: 2 MB, which stays in a processor's cache; colours nearer are one.
BITS = 7
# Set in the byte of a pixel whose class is only the nearest one, not near.
FAR = 128


class ClassColours:
    """Classes with their colours, on one device.

    ``colours``: (K, 3) float32 in [-1, 1].
    """

    def __init__(self, classes: Sequence[PaletteClass], device: torch.device) -> None:
        self.classes = tuple(classes)
        levels = torch.tensor([c.colour for c in self.classes], dtype=torch.float64)
        self.colours = (levels / 127.5 - 1).float().to(device)

    @functools.cached_property
    def _table(self) -> Tensor:
        marked = _marked_colours(tuple(c.colour for c in self.classes))
        return torch.from_numpy(marked).to(self.colours.device)

    def mark(self, pixels: Tensor) -> Tensor:
        """(..., 3) uint8 -> (...) uint8, the nearest class by its largest band.

        With the bit `FAR` where even that one is not near.
        """
        levels = (pixels >> (8 - BITS)).int()
        index = (levels[..., 0] << (2 * BITS)) + (levels[..., 1] << BITS) + levels[..., 2]
        return self._table.index_select(0, index.flatten()).view(index.shape)

    def paint(self, classes: Tensor) -> Tensor:
        """(n, h, w) of integers -> (n, 3, h, w) float32 in [-1, 1]."""
        return self.colours[classes.long()].permute(0, 3, 1, 2)

    def expected_colour(self, logits: Tensor) -> Tensor:
        """(n, K, h, w) logits -> (n, 3, h, w) float32: the colours' mean under their softmax."""
        shares = torch.softmax(logits.float(), dim=1)
        return torch.einsum("nkhw,kc->nchw", shares, self.colours)

    def most_likely_colour(self, logits: Tensor) -> Tensor:
        """(n, K, h, w) logits -> (n, 3, h, w) float32, the colour of the most likely class."""
        return self.paint(logits.argmax(1))

    def shares(self, marked: Tensor) -> Tensor:
        """(n,) uint8 marked classes -> (K,) float64, shares among the pixels that have one."""
        counts = torch.bincount(known_classes(marked).long(), minlength=IGNORED + 1)
        known = counts[: len(self.classes)].double()
        return known / known.sum().clamp(min=1)


def known_classes(marked: Tensor) -> Tensor:
    """Marked classes -> uint8 classes, `IGNORED` where none is near."""
    return torch.where(marked >= FAR, IGNORED, marked)


def nearest_classes(marked: Tensor) -> Tensor:
    """Marked classes -> uint8 classes, the nearest one everywhere."""
    return marked & (FAR - 1)


def class_weights(shares: Tensor, power: float, boost: Tensor | None = None) -> Tensor:
    """(K,) float32: share ** -power x boost, scaled so that the mean over pixels is 1.

    A class of less than a thousandth counts as a thousandth: rarer ones would rule the loss.
    """
    weights = shares.clamp(min=1e-3) ** -power
    if boost is not None:
        weights = weights * boost
    return (weights / (weights * shares).sum().clamp(min=1e-6)).float()


@functools.lru_cache(maxsize=4)  # the runs of a sweep have one palette
def _marked_colours(palette: tuple[tuple[int, int, int], ...]) -> NDArray[np.uint8]:
    """For every colour of `BITS` bits a band: the nearest class uint8, with `FAR` if it is."""
    colours = np.array(palette, np.int16)
    levels = (np.arange(2**BITS, dtype=np.int16) << (8 - BITS)) + (1 << (7 - BITS))
    marked = np.empty((2**BITS,) * 3, np.uint8)
    # (K, levels) per band: the distance, and below it the class, so that the smallest number has
    # both; of classes as near the first. The largest band's is taken plane by plane to save memory.
    number = np.arange(len(colours), dtype=np.int16)[:, None]
    red, green, blue = (np.abs(levels - colours[:, b : b + 1]) * FAR + number for b in range(3))
    plane = np.maximum(green[:, :, None], blue[:, None, :])
    for i in range(len(levels)):
        nearest = np.maximum(red[:, i, None, None], plane).min(0)
        marked[i] = (nearest & (FAR - 1)) + np.where(nearest >= (FARTHEST + 1) * FAR, FAR, 0)
    return marked.reshape(-1)
