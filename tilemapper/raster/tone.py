"""Tone matching: the whole raster's colours moved to those of a model's training imagery.

Mean and standard deviation of each band are matched (Reinhard et al., Color Transfer between
Images, IEEE CG&A 2001, in RGB), once for the whole raster, so that tiles cannot differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean, std of RGB
Tone = tuple[tuple[float, float], ...]  # gain and offset of each band

# A raster of fog or of one flat colour must not be blown up into noise.
LEAST_GAIN, MOST_GAIN = 0.25, 4.0


def tone_between(rgb: NDArray[np.uint8], wanted: Statistics) -> Tone | None:
    """Gains and offsets that give a sample the wanted mean and deviation; None for no sample.

    Args:
        rgb: (3, …) uint8, valid pixels of the raster.
        wanted: mean and standard deviation of red, green, blue, in grey levels.
    """
    if rgb.size == 0:
        return None
    flat = rgb.reshape(3, -1).astype(np.float64)
    pairs = []
    for band, mean, std in zip(flat, *wanted, strict=True):
        gain = float(np.clip(std / max(float(band.std()), 1e-6), LEAST_GAIN, MOST_GAIN))
        pairs.append((round(gain, 6), round(mean - gain * float(band.mean()), 6)))
    return tuple(pairs)


def tone_table(tone: Tone) -> NDArray[np.uint8]:
    """What each grey level becomes, (3, 256) uint8."""
    levels = np.arange(256)
    table = np.stack([np.rint(gain * levels + offset) for gain, offset in tone])
    return table.clip(0, 255).astype(np.uint8)


def apply_tone(rgb: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, h, w) uint8 through the table."""
    return np.stack([levels[band] for levels, band in zip(table, rgb, strict=True)])
