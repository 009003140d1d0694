"""A sheet of the synthetic city while it is painted: tones and map classes, in a frame of its own.

A district is painted along its streets, a motorway along its lanes, as plain rectangles; the
sheet is then laid into the world, turned. Rows are v, columns are u.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.dice import Dice, hashed

_VARIANTS = 12  # of each size of tree
_REACH = 14  # no tree with its shadow reaches farther, pixels
SUN_SHADOW = (-0.42, -0.91)  # where shadows fall, in the world: to the north-north-west


@dataclass(frozen=True)
class Sheet:
    """A painted sheet, where its pixel (0, 0) lies, and its direction in the world."""

    packed: NDArray[np.uint16]  # (height, width): tone + 256 * map class
    u0: int
    v0: int
    along: tuple[int, int]  # of u, times 2**14


class Canvas:
    """Two planes, (height, width) uint8: ``tone`` (see `tones`) and ``ground`` (map class)."""

    def __init__(self, height: int, width: int, along: tuple[float, float]) -> None:
        """``along``: the unit vector of u in the world, which says where shadows fall here."""
        self.tone = np.full((height, width), tones.ASPHALT + 2, np.uint8)
        self.ground = np.full((height, width), tones.ROAD, np.uint8)
        c, s = along
        x, y = SUN_SHADOW
        self._trees: list[NDArray[np.int64]] = []
        self.shadow = (c * x + s * y, c * y - s * x)  # in (u, v)

    def fill(self, u0: int, v0: int, u1: int, v1: int, tone: int, ground: int = -1) -> None:
        """Fills [u0, u1) x [v0, v1); the map class only where one is given."""
        # Nothing here may be negative: it would count from the sheet's other side.
        u0, v0, u1, v1 = max(u0, 0), max(v0, 0), max(u1, 0), max(v1, 0)
        self.tone[v0:v1, u0:u1] = tone
        if ground >= 0:
            self.ground[v0:v1, u0:u1] = ground

    def shade(self, u0: int, v0: int, u1: int, v1: int, length: float) -> None:
        """The shadow that a block of this outline casts, ``length`` pixels long."""
        stride = max(3.0, 0.35 * min(u1 - u0, v1 - v0))  # no gap between the copies
        steps = max(1, int(length / stride + 0.999))
        for step in range(1, steps + 1):
            du = int(np.floor(self.shadow[0] * length * step / steps + 0.5))
            dv = int(np.floor(self.shadow[1] * length * step / steps + 0.5))
            self.tone[max(v0 + dv, 0) : max(v1 + dv, 0), max(u0 + du, 0) : max(u1 + du, 0)] |= 128

    def trees(self, places: NDArray[Any], radii: NDArray[Any], dice: Dice) -> None:
        """Notes trees at ``places`` (n, 2) as (u, v) with ``radii`` (n,); `plant` draws them."""
        kinds = dice.wholes(len(places), 0, _VARIANTS)
        self._trees.append(np.column_stack([places, radii, kinds]))

    def plant(self) -> None:
        """Draws all trees with their shadows; those too near the sheet's edge are left out."""
        if not self._trees:
            return
        u, v, radius, kind = np.concatenate(self._trees).T
        self._trees.clear()
        height, width = self.tone.shape
        inside = (u >= _REACH) & (v >= _REACH) & (u < width - _REACH) & (v < height - _REACH)
        flat = self.tone.reshape(-1)
        for variant in range(_VARIANTS):
            for size in np.unique(radius).tolist():
                chosen = inside & (kind == variant) & (radius == size)
                places = (v[chosen] * width + u[chosen])[:, None]
                shape = _tree(size, variant, round(self.shadow[0], 1), round(self.shadow[1], 1))
                cast = places + (shape.cast_v * width + shape.cast_u)
                flat[cast] |= 128
                flat[places + (shape.crown_v * width + shape.crown_u)] = shape.tones

    def packed(self) -> NDArray[np.uint16]:
        """Both planes in one, (height, width) uint16: tone + 256 * map class."""
        return self.tone.astype(np.uint16) | (self.ground.astype(np.uint16) << np.uint16(8))


class _Tree(NamedTuple):
    """One kind of tree as offsets from its middle, each (n,)."""

    crown_v: NDArray[np.int64]
    crown_u: NDArray[np.int64]
    tones: NDArray[np.uint8]
    cast_v: NDArray[np.int64]
    cast_u: NDArray[np.int64]


@functools.lru_cache(maxsize=4096)
def _tree(radius: int, variant: int, shadow_u: float, shadow_v: float) -> _Tree:
    reach = 2 * radius + 1
    size = 2 * reach + 1
    v, u = np.mgrid[:size, :size] - float(reach)
    ragged = hashed(variant * 977 + radius, np.arange(size * size)).reshape(size, size)
    squash = 0.85 + 0.3 * ((variant * 7) % 5) / 4.0
    away = u * u * squash + v * v / squash
    crown = away < (radius + 0.4) ** 2 * (0.72 + 0.45 * ragged)
    light = -(u * shadow_u + v * shadow_v) / (radius + 0.5)
    level = 4.0 + 2.6 * light + 2.6 * (ragged - 0.5) + (variant % 4 - 1.5) * 0.8
    tone = (tones.TREE + np.clip(np.rint(level), 0, tones.TREE_LEVELS - 1)).astype(np.uint8)
    length = 0.8 * radius
    cast = (u - shadow_u * length) ** 2 + (v - shadow_v * length) ** 2 < (radius + 0.3) ** 2
    crown_v, crown_u = np.nonzero(crown)
    cast_v, cast_u = np.nonzero(cast)
    return _Tree(crown_v - reach, crown_u - reach, tone[crown], cast_v - reach, cast_u - reach)
