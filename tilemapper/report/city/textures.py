"""Periodic textures that lie over the whole city: grain, sensor noise, water, wooded banks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice, hashed, key_of

PIECE = 512  # a window is painted in pieces that the processor's cache holds
PERIOD = 1024  # of the textures; a multiple of PIECE


def part(texture: NDArray[Any], x0: int, y0: int, width: int, height: int) -> NDArray[Any]:
    """A view of a texture for a window that leaves a piece by one pixel at most."""
    # Textures are stored with one more pixel on each side.
    x, y = (x0 + 1) % PERIOD, (y0 + 1) % PERIOD
    return texture[y : y + height, x : x + width]


def _rimmed(texture: NDArray[Any]) -> NDArray[Any]:
    return np.pad(texture, 1, mode="wrap")


class Textures:
    """The textures of one seed, each (PERIOD + 2, PERIOD + 2), for `part`."""

    def __init__(self, seed: int) -> None:
        self.grain = _rimmed(_grain(seed))  # uint16, 0..31
        self.noise = _rimmed(_sensor_noise(seed))  # uint64, three lanes
        self.water = _rimmed(_water(seed))  # uint16, layers
        self.woods = _rimmed(_woods(seed))  # uint16, layers


def periodic_noise(key: int, cell: int) -> NDArray[np.float64]:
    """Value noise in [0, 1] with knots every ``cell`` pixels, (PERIOD, PERIOD)."""
    knots = PERIOD // cell
    value = hashed(key, np.arange(knots * knots)).reshape(knots, knots)
    if cell == 1:
        return value
    at = (np.arange(PERIOD) % cell) / cell
    blend = at * at * (3.0 - 2.0 * at)
    first = np.arange(PERIOD) // cell
    rows = value[first] + (value[(first + 1) % knots] - value[first]) * blend[:, None]
    columns = rows[:, first]
    return np.asarray(columns + (rows[:, (first + 1) % knots] - columns) * blend)


def _grain(seed: int) -> NDArray[np.uint16]:
    """The unevenness of every surface: fine, with soft blotches."""
    total = np.zeros((PERIOD, PERIOD))
    octaves = ((1, 1.15), (2, 0.7), (4, 0.45), (16, 0.35), (128, 0.3))
    for number, (cell, share) in enumerate(octaves):
        total += share * (periodic_noise(key_of(seed, 77, number), cell) - 0.5)
    return np.clip(np.rint(15.5 + 17.0 * total), 0, 31).astype(np.uint16)


def _sensor_noise(seed: int) -> NDArray[np.uint64]:
    """Noise of the sensor, 0 to 7 levels in 256ths, the same in three lanes of 16 bits."""
    total = np.zeros((PERIOD, PERIOD))
    for number in range(3):
        total += periodic_noise(key_of(seed, 78, number), 1)
    lane = np.rint(256.0 * 7.0 / 3.0 * total).astype(np.uint64)
    return np.asarray(lane | lane << np.uint64(16) | lane << np.uint64(32))


def _water(seed: int) -> NDArray[np.uint16]:
    total = np.full((PERIOD, PERIOD), 0.5)
    for number, (cell, share) in enumerate(((256, 5.5), (64, 1.0), (16, 0.6), (4, 0.6), (2, 0.5))):
        total += share * periodic_noise(key_of(seed, 79, number), cell)
    level = np.clip(np.rint(total - 0.8), 0, tones.DEEP_LEVELS - 1)
    return (tones.DEEP + level + 256 * tones.WATER).astype(np.uint16)


def _woods(seed: int) -> NDArray[np.uint16]:
    """Lawn with many trees: what grows on river banks."""
    canvas = Canvas(PERIOD, PERIOD, (1.0, 0.0))
    canvas.tone[:] = tones.GRASS + 2
    canvas.ground[:] = tones.PARK
    dice = Dice(seed, 9)
    count = PERIOD * PERIOD // 90
    places = np.stack([dice.wholes(count, 0, PERIOD), dice.wholes(count, 0, PERIOD)], axis=1)
    canvas.trees(places, dice.wholes(count, 2, 6), dice)
    canvas.plant()
    return canvas.packed()
