"""A sheet of the synthetic city while it is painted: tones and map classes, in a frame of its own.

A district is painted along its streets, a motorway along its lanes, as plain rectangles; the
sheet is then laid into the world, turned. Rows are v, columns are u.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.report import city_tones as tones
from tilemapper.report.city_dice import Dice, hashed

SUN_SHADOW = (-0.42, -0.91)  # where shadows fall, in the world: to the north-north-west


class Canvas:
    """Two planes, (height, width) uint8: ``tone`` (see city_tones) and ``ground`` (map class)."""

    def __init__(self, height: int, width: int, along: tuple[float, float]) -> None:
        """``along``: the unit vector of u in the world, which says where shadows fall here."""
        self.tone = np.full((height, width), tones.ASPHALT + 2, np.uint8)
        self.ground = np.full((height, width), tones.ROAD, np.uint8)
        c, s = along
        x, y = SUN_SHADOW
        self.shadow = (c * x + s * y, c * y - s * x)  # in (u, v)

    def fill(self, u0: int, v0: int, u1: int, v1: int, tone: int, ground: int = -1) -> None:
        """Fills [u0, u1) x [v0, v1); the map class only where one is given."""
        u0, v0 = max(u0, 0), max(v0, 0)
        self.tone[v0:v1, u0:u1] = tone
        if ground >= 0:
            self.ground[v0:v1, u0:u1] = ground

    def shade(self, u0: int, v0: int, u1: int, v1: int, length: float) -> None:
        """The shadow that a block of this outline casts, ``length`` pixels long."""
        steps = max(1, int(length / 3.0 + 0.999))
        for step in range(1, steps + 1):
            du = int(np.floor(self.shadow[0] * length * step / steps + 0.5))
            dv = int(np.floor(self.shadow[1] * length * step / steps + 0.5))
            self.tone[max(v0 + dv, 0) : max(v1 + dv, 0), max(u0 + du, 0) : max(u1 + du, 0)] |= 128

    def stamp(self, u: int, v: int, radius: int, variant: int) -> None:
        """One tree with its shadow, centred near (u, v); nothing where it would leave the sheet."""
        crown, mask, cast = _tree(
            radius, variant, round(self.shadow[0], 1), round(self.shadow[1], 1)
        )
        size = crown.shape[0]
        top, left = v - size // 2, u - size // 2
        if top < 0 or left < 0:
            return
        target = self.tone[top : top + size, left : left + size]
        if target.shape != crown.shape:
            return
        target |= cast
        np.copyto(target, crown, where=mask)

    def trees(self, places: NDArray[Any], radii: NDArray[Any], dice: Dice) -> None:
        """Many trees: ``places`` (n, 2) as (u, v), ``radii`` (n,)."""
        variants = dice.wholes(len(places), 0, 12)
        for (u, v), radius, variant in zip(
            places.tolist(), radii.tolist(), variants.tolist(), strict=True
        ):
            self.stamp(int(u), int(v), int(radius), variant)

    def packed(self) -> NDArray[np.uint16]:
        """Both planes in one, (height, width) uint16: tone + 256 * map class."""
        return self.tone.astype(np.uint16) | (self.ground.astype(np.uint16) << np.uint16(8))


@functools.lru_cache(maxsize=4096)
def _tree(
    radius: int, variant: int, shadow_u: float, shadow_v: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]:
    """Tones, outline and cast shadow of one tree, all (size, size)."""
    reach = 2 * radius + 1
    size = 2 * reach + 1
    v, u = np.mgrid[:size, :size] - float(reach)
    ragged = hashed(variant * 977 + radius, np.arange(size * size)).reshape(size, size)
    squash = 0.85 + 0.3 * ((variant * 7) % 5) / 4.0
    away = u * u * squash + v * v / squash
    mask = away < (radius + 0.4) ** 2 * (0.72 + 0.45 * ragged)
    light = -(u * shadow_u + v * shadow_v) / (radius + 0.5)
    level = 4.0 + 2.6 * light + 2.6 * (ragged - 0.5) + (variant % 4 - 1.5) * 0.8
    crown = (tones.TREE + np.clip(np.rint(level), 0, tones.TREE_LEVELS - 1)).astype(np.uint8)
    length = 0.8 * radius
    moved = (u - shadow_u * length) ** 2 + (v - shadow_v * length) ** 2 < (radius + 0.3) ** 2
    return crown, mask, np.where(moved, 128, 0).astype(np.uint8)
