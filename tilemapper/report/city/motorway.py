"""Paints a stretch of motorway: carriageways, cars, verges, slip roads, overpasses, side roads.

The sheet's u runs along the motorway (t), its v across (n), the middle being row `HALF`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.lines import UNIT, Family
from tilemapper.report.city.plan import Plan

STRETCH = 2048  # pixels along the motorway in one sheet
HALF = 57  # pixels from the middle to the outer edge of the side roads
INTERCHANGE = 94  # where two motorways meet, both closer than this: loops among lawns
DECK = 16  # what of it crosses water
_CARRIAGEWAY = (2, 14)  # from the middle
_SIDE_ROAD = (43, 54)


def paint_stretch(plan: Plan, number: int, line: int, stretch: int) -> NDArray[np.uint16]:
    """Stretch ``stretch`` of a motorway, (2 * HALF + 1, STRETCH) uint16: tone + 256 * class."""
    family: Family = plan.motorways[number]
    dice = Dice(plan.seed, 8, number, line, stretch)
    canvas = Canvas(2 * HALF + 1, STRETCH, (family.along[0] / UNIT, family.along[1] / UNIT))
    canvas.tone[:] = tones.GRASS + 3
    canvas.ground[:] = tones.LAND
    _verges(canvas, dice)
    for sign in (-1, 1):
        _side_road(canvas, sign, dice)
        _carriageway(canvas, sign, dice)
    _cross(canvas, dice, _on_land(plan, number, line, stretch))
    return canvas.packed()


def _rows(sign: int, near: int, far: int) -> slice:
    return slice(HALF + near, HALF + far) if sign > 0 else slice(HALF + 1 - far, HALF + 1 - near)


def _verges(canvas: Canvas, dice: Dice) -> None:
    count = 1400
    u = dice.wholes(count, 8, STRETCH - 8)
    side = np.where(dice.numbers(count) < 0.5, -1, 1)
    v = HALF + side * dice.wholes(count, 20, 42)
    woods = dice.numbers(STRETCH // 128) < 0.75
    kept = woods[u // 128]
    canvas.trees(np.stack([u, v], axis=1)[kept], dice.wholes(count, 2, 6)[kept], dice)
    canvas.plant()


def _side_road(canvas: Canvas, sign: int, dice: Dice) -> None:
    near, far = _SIDE_ROAD
    canvas.tone[_rows(sign, near - 2, HALF + 1)] = tones.CONCRETE + 1
    canvas.tone[_rows(sign, near, far)] = tones.ASPHALT + 2
    canvas.ground[_rows(sign, near - 1, far + 1)] = tones.OUTLINE
    canvas.ground[_rows(sign, near, far)] = tones.ROAD
    canvas.ground[_rows(sign, far + 1, HALF + 1)] = tones.LAND
    for lane in (near + 3, near + 8):
        _cars(canvas, _rows(sign, lane, lane + 2), dice, 0.16)


def _carriageway(canvas: Canvas, sign: int, dice: Dice) -> None:
    near, far = _CARRIAGEWAY
    canvas.tone[_rows(sign, 1, far + 2)] = tones.ASPHALT + 4
    canvas.tone[_rows(sign, near, far)] = tones.CONCRETE + dice.whole(0, 1)
    canvas.tone[_rows(sign, 0, 1)] = tones.CONCRETE + 3  # the barrier in the middle
    for lane in (near + 4, near + 8):
        dashes = canvas.tone[_rows(sign, lane, lane + 1)].reshape(-1)
        dashes.reshape(-1, 8)[:, :3] = tones.CONCRETE + 2
    for lane in (near + 1, near + 5, near + 9):
        _cars(canvas, _rows(sign, lane, lane + 2), dice, 0.13)
    canvas.ground[_rows(sign, near - 1, far + 1)] = tones.CASING
    canvas.ground[_rows(sign, near, far)] = tones.MOTORWAY


def _cars(canvas: Canvas, rows: slice, dice: Dice, share: float) -> None:
    count = STRETCH // 16
    there = dice.numbers(count) < share
    starts = np.arange(count) * 16 + dice.wholes(count, 0, 8)
    colours = tones.CAR + dice.wholes(count, 0, tones.CAR_LEVELS)
    long = np.where(dice.numbers(count) < 0.12, 12, 5)
    for start, colour, length in zip(
        starts[there].tolist(), colours[there].tolist(), long[there].tolist(), strict=True
    ):
        canvas.tone[rows, start : start + length] = colour


def _on_land(plan: Plan, number: int, line: int, stretch: int) -> NDArray[np.bool_]:
    """Where along the stretch an overpass has its feet on land and no other motorway near."""
    t = np.arange(STRETCH, dtype=np.float64) + stretch * STRETCH
    x, y = plan.motorways[number].place(line, t)
    other = plan.motorways[1 - number].distance(x, y)
    return np.asarray((plan.river.distance(x, y) > 75.0) & (other > 75.0))


def _cross(canvas: Canvas, dice: Dice, free: NDArray[np.bool_]) -> None:
    """Overpasses, and slip roads before and behind some of them."""
    at = dice.whole(120, 300)
    while at < STRETCH - 180:
        half = dice.whole(6, 10)
        if not free[at]:
            at += 40
            continue
        if dice.chance(0.6):
            for sign in (-1, 1):
                _slip_road(canvas, at - half - 12, -1, sign)
                _slip_road(canvas, at + half + 12, 1, sign)
        near, _ = _SIDE_ROAD
        rows = slice(HALF + 1 - near, HALF + near)
        shift = 4 if canvas.shadow[0] > 0 else -4
        canvas.tone[rows, at - half + shift : at + half + shift] |= 128
        canvas.tone[rows, at - half : at + half] = tones.CONCRETE + 1
        canvas.tone[rows, at - half + 2 : at + half - 2] = tones.ASPHALT + 3
        canvas.ground[rows, at - half - 1 : at + half + 1] = tones.OUTLINE
        canvas.ground[rows, at - half : at + half] = tones.ROAD
        at += dice.whole(330, 620)


def _slip_road(canvas: Canvas, start: int, way: int, sign: int) -> None:
    """From the side road at ``start`` down to the carriageway, 130 pixels further along."""
    length = 130
    for step in range(length):
        share = step / length
        smooth = share * share * (3.0 - 2.0 * share)
        n = int(_SIDE_ROAD[0] - 3 - smooth * (_SIDE_ROAD[0] - 3 - _CARRIAGEWAY[1] - 2))
        u = start + way * step
        if not 0 <= u < STRETCH:
            return
        canvas.tone[_rows(sign, n - 4, n + 5), u] = tones.CONCRETE + 3
        canvas.tone[_rows(sign, n - 3, n + 4), u] = tones.CONCRETE
        ground = canvas.ground[_rows(sign, n - 4, n + 5), u]
        ground[ground == tones.LAND] = tones.CASING
        canvas.ground[_rows(sign, max(n - 3, _CARRIAGEWAY[1] + 1), n + 4), u] = tones.RAMP
