"""The palette of a head: from colours to the nearest class, and back to colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tilemapper.networks.model import PaletteClass
from tilemapper.training.losses import IGNORED

# A pixel farther from every colour than this (largest band) is a label or a watermark.
FARTHEST = 24
# Seven bits a band: 2 MB, which stays in a processor's cache; colours nearer are one.
BITS = 7


class ClassColours:
    """Classes with their colours, on one device.

    ``colours``: (K, 3) float32 in [-1, 1].
    """

    def __init__(self, classes: Sequence[PaletteClass], device: torch.device) -> None:
        self.classes = tuple(classes)
        colours = np.array([c.colour for c in self.classes], np.int16)
        self.colours = torch.tensor(colours / 127.5 - 1, dtype=torch.float32, device=device)
        self._nearest, far = (torch.from_numpy(t).to(device) for t in _tables(colours))
        self._known = torch.where(far, IGNORED, self._nearest.int()).to(torch.uint8)

    def classes_of(self, image: Tensor, *, everywhere: bool = False) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, h, w) int64, the nearest class by its largest band.

        `IGNORED` where none is near; with ``everywhere`` the nearest one all the same.
        """
        levels = ((image + 1) * 127.5).round().clamp(0, 255).int() >> (8 - BITS)
        index = (levels[:, 0] << (2 * BITS)) + (levels[:, 1] << BITS) + levels[:, 2]
        table = self._nearest if everywhere else self._known
        return table[index.long()].long()

    def paint(self, classes: Tensor) -> Tensor:
        """(n, h, w) int64 -> (n, 3, h, w) float32 in [-1, 1]."""
        return self.colours[classes].permute(0, 3, 1, 2)

    def expected_colour(self, logits: Tensor) -> Tensor:
        """(n, K, h, w) logits -> (n, 3, h, w) float32: the colours' mean under their softmax."""
        shares = torch.softmax(logits.float(), dim=1)
        return torch.einsum("nkhw,kc->nchw", shares, self.colours)

    def most_likely_colour(self, logits: Tensor) -> Tensor:
        """(n, K, h, w) logits -> (n, 3, h, w) float32, the colour of the most likely class."""
        return self.paint(logits.argmax(1))

    def shares(self, pixels: Tensor) -> Tensor:
        """(n, 3) uint8 -> (K,) float64, the share of each class among the pixels that have one."""
        image = pixels.to(self.colours.device).float().T[None, :, :, None] / 127.5 - 1
        counts = torch.bincount(self.classes_of(image).flatten(), minlength=IGNORED + 1)
        known = counts[: len(self.classes)].double()
        return known / known.sum().clamp(min=1)


def class_weights(shares: Tensor, power: float, boost: Tensor | None = None) -> Tensor:
    """(K,) float32: share ** -power x boost, scaled so that the mean over pixels is 1.

    A class of less than a thousandth counts as a thousandth: rarer ones would rule the loss.
    """
    weights = shares.clamp(min=1e-3) ** -power
    if boost is not None:
        weights = weights * boost
    return (weights / (weights * shares).sum().clamp(min=1e-6)).float()


def _tables(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every colour of `BITS` bits a band: the nearest class uint8, and whether it is far."""
    levels = (np.arange(2**BITS, dtype=np.int16) << (8 - BITS)) + (1 << (7 - BITS))
    nearest = np.empty((2**BITS,) * 3, np.uint8)
    far = np.empty((2**BITS,) * 3, bool)
    # (K, levels) per band; the largest band's distance is taken plane by plane to save memory.
    red, green, blue = (np.abs(levels[None] - colours[:, b : b + 1]) for b in range(3))
    plane = np.maximum(green[:, :, None], blue[:, None, :])
    for i in range(len(levels)):
        distance = np.maximum(red[:, i, None, None], plane)
        nearest[i] = distance.argmin(0)
        far[i] = distance.min(0) > FARTHEST
    return nearest.reshape(-1), far.reshape(-1)
