"""What the synthetic city is made of: tones seen from above, and colours of the true map.

A pixel of the imagery is a tone (0..127, and the same + 128 in shadow) and a grain (0..31); one
table turns both into RGB. A pixel of the truth is a class of `MAP_CLASSES`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

MAP_CLASSES: tuple[tuple[str, Colour], ...] = (
    ("land", (232, 228, 224)),
    ("building", (244, 240, 236)),
    ("water", (177, 209, 255)),
    ("grey", (224, 220, 212)),
    ("park", (203, 223, 171)),
    ("road", (255, 255, 255)),
    ("outline", (212, 212, 208)),
    ("pitch", (196, 220, 160)),
    ("forest", (188, 212, 188)),
    ("sand", (240, 228, 208)),
    ("motorway", (252, 160, 36)),
    ("campus", (232, 220, 188)),
    ("hospital", (236, 208, 208)),
    ("ramp", (252, 196, 68)),
    ("casing", (216, 152, 56)),
)
(
    LAND, BUILDING, WATER, GREY, PARK, ROAD, OUTLINE, PITCH, FOREST, SAND, MOTORWAY, CAMPUS,
    HOSPITAL, RAMP, CASING,
) = range(len(MAP_CLASSES))  # fmt: skip

# First tone of each material; levels run from dark to light.
ROOF, ROOF_LEVELS = 0, 24  # neutral roofs: tar to white membrane
BROWN, BROWN_LEVELS = 24, 10  # shingles, brick
TREE, TREE_LEVELS = 34, 10
GRASS, GRASS_LEVELS = 44, 8
SOIL, SOIL_LEVELS = 52, 8  # yards, dry grass, bare ground
ASPHALT, ASPHALT_LEVELS = 60, 6
CONCRETE, CONCRETE_LEVELS = 66, 6
DEEP, DEEP_LEVELS = 72, 8  # water
CAR, CAR_LEVELS = 80, 8
COURT, COURT_LEVELS = 88, 4  # sports courts: green, blue, red, teal
INFIELD, INFIELD_LEVELS = 92, 3
MARKING = 95
SHADOW = 128


def _ramp(first: Colour, last: Colour, levels: int) -> NDArray[np.float64]:
    at = np.linspace(0.0, 1.0, levels)[:, None]
    start, end = np.array(first, np.float64), np.array(last, np.float64)
    return np.asarray(start + at * (end - start))


def _base_colours() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Colour (128, 3) and strength of the grain (128,) of each tone in the light."""
    colour, grain = np.zeros((128, 3)), np.zeros(128)
    for start, levels, first, last, strength in (
        (ROOF, ROOF_LEVELS, (33, 33, 32), (212, 214, 214), 13.0),
        (BROWN, BROWN_LEVELS, (44, 40, 36), (114, 108, 98), 9.0),
        (TREE, TREE_LEVELS, (10, 14, 8), (58, 68, 43), 8.0),
        (GRASS, GRASS_LEVELS, (30, 37, 25), (72, 78, 53), 6.0),
        (SOIL, SOIL_LEVELS, (44, 44, 37), (104, 98, 83), 9.0),
        (ASPHALT, ASPHALT_LEVELS, (48, 48, 45), (86, 85, 80), 8.0),
        (CONCRETE, CONCRETE_LEVELS, (86, 85, 78), (150, 148, 140), 9.0),
        (DEEP, DEEP_LEVELS, (23, 32, 28), (40, 52, 45), 2.2),
    ):
        colour[start : start + levels] = _ramp(first, last, levels)
        grain[start : start + levels] = strength
    cars = ((190, 190, 190), (24, 24, 26), (130, 131, 134), (44, 46, 52), (205, 205, 203),
            (84, 42, 38), (44, 52, 68), (96, 96, 94))  # fmt: skip
    colour[CAR : CAR + CAR_LEVELS], grain[CAR : CAR + CAR_LEVELS] = cars, 4.0
    courts = ((52, 84, 60), (50, 66, 98), (112, 66, 52), (58, 92, 92))
    colour[COURT : COURT + COURT_LEVELS], grain[COURT : COURT + COURT_LEVELS] = courts, 3.0
    colour[INFIELD : INFIELD + 3] = ((104, 88, 70), (118, 101, 81), (130, 114, 92))
    grain[INFIELD : INFIELD + 3] = 5.0
    colour[MARKING], grain[MARKING] = (150, 149, 143), 5.0
    return colour, grain


def colour_table() -> NDArray[np.uint64]:
    """Colour of (tone, grain), (256 * 32,) uint64: red, green, blue in the low 16-bit lanes.

    In lanes, one 64-bit addition filters three channels at once.
    """
    colour, strength = _base_colours()
    # The light in a shadow comes from the sky: a third of it, and a little blue.
    dark = colour * 0.30 + np.array((2.0, 3.0, 5.0))
    colour = np.concatenate([colour, dark])
    strength = np.concatenate([strength, strength * 0.45])
    grain = (np.arange(32) - 15.5) / 8.0
    rgb = colour[:, None, :] + (strength[:, None] * grain)[..., None]
    rgb8 = np.clip(np.rint(rgb - 3.5), 2, 236).astype(np.uint64).reshape(-1, 3)
    return np.asarray(rgb8[:, 0] | rgb8[:, 1] << np.uint64(16) | rgb8[:, 2] << np.uint64(32))


def map_table() -> NDArray[np.uint8]:
    """Colour of each class, (256, 3) uint8."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(MAP_CLASSES)] = [colour for _, colour in MAP_CLASSES]
    return table
