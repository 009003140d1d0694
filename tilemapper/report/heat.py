"""The heat map of seams as a picture, and the key to its colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.webp import Picture, encode_picture
from tilemapper.report.template import fill

# From this excess on: red, green, blue and opacity. Light to dark, so that it reads without hue.
STEPS = (
    (-np.inf, (198, 219, 239, 70), "below 0.25"),
    (0.25, (254, 217, 118, 130), "0.25"),
    (0.5, (253, 141, 60, 165), "0.5"),
    (1.0, (227, 26, 28, 190), "1"),
    (2.0, (106, 0, 60, 205), "2 and more"),
)


def heat_picture(heat: NDArray[np.float32]) -> Picture:
    """(rows, cols) as a picture of as many pixels; clear where nothing was measured (NaN)."""
    place = np.searchsorted([low for low, _, _ in STEPS], heat, side="right") - 1
    colours = np.array([colour for _, colour, _ in STEPS], np.uint8)[np.maximum(place, 0)]
    colours[~np.isfinite(heat)] = 0
    return encode_picture(np.ascontiguousarray(colours[..., :3]), alpha=colours[..., 3])


def heat_key() -> str:
    """The colours and what they stand for, as HTML."""
    colours = " ".join(
        fill(
            '<span class="swatch" style="background:rgb({{rgb}})"></span>{{words}}',
            {"rgb": " ".join(map(str, colour[:3])), "words": words},
        )
        for _, colour, words in STEPS
    )
    return f"{colours} (clear: not looked at)"
