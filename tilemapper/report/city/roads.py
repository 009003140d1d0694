"""Lays motorways into a window: over the rivers, under the avenues that cross them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.frame import Beside, Frame, extent
from tilemapper.report.city.motorway import DECK, HALF, INTERCHANGE, STRETCH
from tilemapper.report.city.plan import Plan
from tilemapper.report.city.streets import Avenues
from tilemapper.report.city.textures import Textures, part

# Half widths of the loops of an interchange, outer one first, and what they show.
_LOOP = (
    (6, np.uint16(tones.CONCRETE + 3 | tones.CASING << 8)),
    (5, np.uint16(tones.CONCRETE | tones.RAMP << 8)),
)
_LOOP_MIDDLE, _LOOP_RADIUS = 49, 35  # the loops touch the carriageways' edges


def lay_motorways(
    layers: NDArray[np.uint16],
    plan: Plan,
    frame: Frame,
    textures: Textures,
    avenues: Avenues | None,
    water: NDArray[np.bool_] | None,
    stretch_of: Callable[[int, int, int], NDArray[np.uint16]],
) -> None:
    """Draws all motorways; ``stretch_of`` paints a stretch (family, line, stretch) of one."""
    crossed: list[NDArray[np.int32]] = []  # quarter pixels from motorways of the first family
    for number, family in enumerate(plan.motorways):
        for line in family.lines_near(*frame.corners(), reach=INTERCHANGE):
            beside = frame.beside(family, line, INTERCHANGE)
            if beside is None:
                continue
            away = np.abs(beside.n4)
            inside = away < 4 * HALF
            if water is not None:
                inside &= ~(water & (away > 4 * DECK))
            if avenues is not None:
                inside &= ~avenues.flying_over(plan, number)
            for other in crossed:
                _lay_interchange(layers, frame, textures, other, away)
                inside &= (away <= 4 * DECK) | (other > 4 * INTERCHANGE)
            if number == 0:
                crossed.append(away)
            if inside.any():
                window = extent(inside)
                part_beside = Beside(beside.t[window], beside.t0, beside.n4[window])
                _lay_stretches(
                    layers[window], inside[window], part_beside,
                    functools.partial(stretch_of, number, line),
                )  # fmt: skip


def _lay_stretches(
    layers: NDArray[np.uint16],
    inside: NDArray[np.bool_],
    beside: Beside,
    stretch_of: Callable[[int], NDArray[np.uint16]],
) -> None:
    t, t0, n4 = beside
    first, last = t0 + int(t.min()), t0 + int(t.max())
    for stretch in range(first // STRETCH, last // STRETCH + 1):
        sheet = stretch_of(stretch)
        column = t + np.int32(t0 - stretch * STRETCH)
        here = inside & (column >= 0) & (column < STRETCH)
        index = ((n4 >> np.int32(2)) + np.int32(HALF)) * np.int32(STRETCH) + column
        np.copyto(layers, np.take(sheet.reshape(-1), index, mode="clip"), where=here)


def _lay_interchange(
    layers: NDArray[np.uint16],
    frame: Frame,
    textures: Textures,
    first: NDArray[np.int32],
    second: NDArray[np.int32],
) -> None:
    """Lawns and four loops where two motorways meet; the first one's deck stays."""
    where = (first < 4 * INTERCHANGE) & (second < 4 * INTERCHANGE) & (first > 4 * DECK)
    if not where.any():
        return
    window = extent(where)
    lawn = part(textures.woods, frame.x0, frame.y0, frame.width, frame.height)
    target, where = layers[window], where[window]
    np.copyto(target, lawn[window], where=where)
    u = (first[window] >> 2) - _LOOP_MIDDLE
    v = (second[window] >> 2) - _LOOP_MIDDLE
    square = u * u + v * v
    for half, layer in _LOOP:
        ring = (square >= (_LOOP_RADIUS - half) ** 2) & (square < (_LOOP_RADIUS + half) ** 2)
        np.copyto(target, layer, where=where & ring)
