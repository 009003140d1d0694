"""The synthetic city's plan: where rivers, motorways and districts lie.

The plan has no edge and no size: rivers and motorways are families of winding lines, districts are
the Voronoi cells of jittered points. Whatever is asked about a place is computed from hashes of
its surroundings alone, so a window can be painted without the rest of the city.

Pixels are counted x to the right, y down. "Warped" coordinates are bent a little (`warp`), which
gives the streets their gentle curves.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city.dice import Dice, direction, key_of, spline_noise
from tilemapper.report.city.lines import UNIT, Family

PITCH = 840  # mean distance of two districts, pixels
RIVERSIDE = 31  # pixels from the water to the far edge of the riverside road
AVENUES = (11, 11, 8)  # half widths of the avenues between districts
KINDS = ("rows", "apartments", "suburb", "industry", "towers", "downtown", "park", "forest")
_KIND_SHARES = (0.22, 0.26, 0.19, 0.1, 0.07, 0.07, 0.06, 0.03)


@dataclass(frozen=True)
class District:
    """One district: a convex cell, in warped coordinates, with a street direction of its own."""

    cell: tuple[int, int]
    site: tuple[int, int]
    kind: str
    along: tuple[int, int]  # direction of its long blocks, times UNIT
    polygon: tuple[tuple[float, float], ...]


class Plan:
    """All that decides the city of one seed; ``anchor`` is where the first river is crossed."""

    def __init__(self, seed: int, anchor: tuple[float, float]) -> None:
        self.seed = seed
        dice = Dice(seed, 1)
        c, s = direction(dice.number(-0.14, 0.14))
        if dice.chance(0.5):
            c, s = -s, c
        turn = direction(dice.number(-0.1, 0.1))
        across = -(s * turn[0] + c * turn[1]), c * turn[0] - s * turn[1]
        self.river = self._family(11, (c, s), anchor, 5600.0, 150.0, 1300.0, (70.0, 190.0))
        self.motorways = (
            self._family(12, across, anchor, 4700.0, 90.0, 1500.0, (57.0, 57.0)),
            self._family(13, (c, s), self._beside(anchor, (c, s), dice), 6100.0, 70.0, 1700.0,
                         (57.0, 57.0)),
        )  # fmt: skip
        self._bend = key_of(seed, 21), key_of(seed, 22)
        self._first_kinds = self._shuffled_kinds(Dice(seed, 2))
        self.district = functools.lru_cache(maxsize=512)(self._district)
        self.site = functools.lru_cache(maxsize=4096)(self._site)
        self.avenue = functools.lru_cache(maxsize=4096)(self._avenue)
        self.flies_over = functools.lru_cache(maxsize=4096)(self._flies_over)

    @staticmethod
    def _beside(
        anchor: tuple[float, float], along: tuple[float, float], dice: Dice
    ) -> tuple[float, float]:
        # On the side where a 2048-pixel city has more room.
        away = dice.number(820.0, 980.0)
        x, y = anchor[0] - away * along[1], anchor[1] + away * along[0]
        if min(x, y) < 150.0:
            x, y = anchor[0] + away * along[1], anchor[1] - away * along[0]
        return x, y

    def _family(
        self,
        number: int,
        along: tuple[float, float],
        anchor: tuple[float, float],
        spacing: float,
        sway: float,
        wavelength: float,
        width: tuple[float, float],
    ) -> Family:
        c, s = round(along[0] * UNIT), round(along[1] * UNIT)
        straight = Family(key_of(self.seed, number), (c, s), 0.0, spacing, sway, wavelength, width)
        t, n = straight.position(np.array([anchor[0]]), np.array([anchor[1]]))
        origin = float(n[0] - straight.offset(0, t)[0])
        return Family(straight.key, (c, s), origin, spacing, sway, wavelength, width)

    def _shuffled_kinds(self, dice: Dice) -> tuple[str, ...]:
        # The first nine districts hold every kind of ground once, so that small cities do too.
        kinds = [
            "apartments",
            "rows",
            "suburb",
            "industry",
            "towers",
            "apartments",
            "rows",
            "forest",
        ]
        order = np.argsort(dice.numbers(len(kinds)), kind="stable")
        kinds = [kinds[number] for number in order]
        kinds.insert(3, "park")
        return tuple(kinds)

    def warp(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Shift in x at each ``y`` and shift in y at each ``x``, pixels, float64."""
        return (
            34.0 * spline_noise(self._bend[0], y, 1000.0),
            34.0 * spline_noise(self._bend[1], x, 1100.0),
        )

    def unwarp(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The pixels that are bent to these warped coordinates, to a tenth of a pixel."""
        flat_x, flat_y = x, y
        for _ in range(4):
            shift_x, shift_y = self.warp(flat_x, flat_y)
            flat_x, flat_y = x - shift_x, y - shift_y
        return flat_x, flat_y

    def _site(self, i: int, j: int) -> tuple[int, int]:
        dice = Dice(self.seed, 3, i, j)
        shift = 0.5 * (j % 2)  # rows are shifted, as bricks are: cells come out rounder
        x = (i + shift + dice.number(0.17, 0.83)) * PITCH
        return int(x) - 200, int((j + dice.number(0.17, 0.83)) * PITCH) - 60

    def _kind(self, i: int, j: int) -> str:
        if 0 <= i < 3 and 0 <= j < 3:
            return self._first_kinds[3 * j + i]
        draw = Dice(self.seed, 4, i, j).number()
        for kind, share in zip(KINDS, _KIND_SHARES, strict=True):
            draw -= share
            if draw < 0:
                return kind
        return KINDS[0]

    def _district(self, i: int, j: int) -> District:
        dice = Dice(self.seed, 5, i, j)
        c, s = direction(dice.number(-0.42, 0.42))
        if dice.chance(0.5):
            c, s = -s, c
        return District(
            cell=(i, j),
            site=self.site(i, j),
            kind=self._kind(i, j),
            along=(round(c * UNIT), round(s * UNIT)),
            polygon=self._polygon(i, j),
        )

    def neighbours(self, i: int, j: int) -> list[tuple[int, int]]:
        """Cells whose districts may touch that of cell (i, j)."""
        around = range(-2, 3)
        return [(i + di, j + dj) for dj in around for di in around if (di, dj) != (0, 0)]

    def _polygon(self, i: int, j: int) -> tuple[tuple[float, float], ...]:
        """The Voronoi cell's corners, cut from a large square by the bisectors."""
        sx, sy = self.site(i, j)
        far = 2.0 * PITCH
        left, right, top, bottom = sx - far, sx + far, sy - far, sy + far
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        for other in self.neighbours(i, j):
            ox, oy = self.site(*other)
            dx, dy = float(ox - sx), float(oy - sy)
            limit = (ox * ox + oy * oy - sx * sx - sy * sy) / 2.0
            corners = _cut(corners, dx, dy, limit)
        return tuple(corners)

    def _avenue(self, first: tuple[int, int], second: tuple[int, int]) -> int:
        """Half width of the avenue between two districts, pixels."""
        dice = Dice(self.seed, 6, *min(first, second), *max(first, second))
        return AVENUES[dice.whole(0, len(AVENUES))]

    def _flies_over(self, first: tuple[int, int], second: tuple[int, int], number: int) -> bool:
        """Whether the avenue between two districts crosses motorway family ``number`` squarely."""
        family = self.motorways[number]
        if not self._crosses(family, first, second):
            return False
        x, y = self._ends(first, second)
        return len(x) == 2 and bool((family.distance(x, y) > 0.0).all())

    def _ends(
        self, first: tuple[int, int], second: tuple[int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the avenue between two districts ends, x and y; nowhere if they do not touch."""
        (ax, ay), (bx, by) = self.site(*first), self.site(*second)
        dx, dy = float(bx - ax), float(by - ay)
        limit = (bx * bx + by * by - ax * ax - ay * ay) / 2.0
        ends = [
            (x, y)
            for x, y in self.district(*first).polygon
            if abs(dx * x + dy * y - limit) < 0.01 * (abs(dx) + abs(dy))
        ]
        places = np.array(ends, np.float64).reshape(-1, 2)
        return self.unwarp(places[:, 0], places[:, 1])

    def _crosses(self, family: Family, first: tuple[int, int], second: tuple[int, int]) -> bool:
        (ax, ay), (bx, by) = self.site(*first), self.site(*second)
        dx, dy = bx - ax, by - ay
        # The avenue runs across the line between the sites: it crosses what that line goes along.
        along = (family.along[0] * dx + family.along[1] * dy) / UNIT
        return along * along > 0.55 * (dx * dx + dy * dy)


def _cut(
    corners: list[tuple[float, float]], dx: float, dy: float, limit: float
) -> list[tuple[float, float]]:
    """The part of a convex polygon where dx * x + dy * y <= limit."""
    kept = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        a, b = dx * ax + dy * ay - limit, dx * bx + dy * by - limit
        if a <= 0:
            kept.append((ax, ay))
        if (a < 0 < b) or (b < 0 < a):
            share = a / (a - b)
            kept.append((ax + share * (bx - ax), ay + share * (by - ay)))
    return kept
