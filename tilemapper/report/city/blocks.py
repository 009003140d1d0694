"""Paints one block of a district: pavement, lots, buildings with shadows, yards, trees, cars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.room import Room

_ZERO = np.zeros(1)
Rects = NDArray[np.int64]  # (n, 4): u0, v0, u1, v1


@dataclass(frozen=True)
class Block:
    """A block between streets, [u0, u1) x [v0, v1); ``use`` is what stands on it."""

    u0: int
    v0: int
    u1: int
    v1: int
    kind: str
    use: str


def scatter(kind: str, dice: Dice) -> str:
    """What a block of such a district is used for: mostly what the district is known for."""
    draw = dice.number()
    for use, share in (("green", 0.045), ("campus", 0.035), ("hospital", 0.012), ("parking", 0.02)):
        draw -= share
        if draw < 0:
            return use
    return kind


def paint_block(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    """Paints the whole block; buildings only where the room allows."""
    ground, soil = _GROUND[block.use]
    u0, v0, u1, v1 = block.u0, block.v0, block.u1, block.v1
    pavement = tones.CONCRETE + dice.whole(0, 2)
    canvas.fill(u0, v0, u1, v1, pavement, tones.OUTLINE)
    canvas.fill(u0 + 1, v0 + 1, u1 - 1, v1 - 1, pavement, ground)
    canvas.fill(u0 + 3, v0 + 3, u1 - 3, v1 - 3, soil + dice.whole(0, 3))
    _park_cars(canvas, block, dice)
    _USES[block.use](canvas, block, room, dice)


def _park_cars(canvas: Canvas, block: Block, dice: Dice) -> None:
    """A row of cars along each side, just off the kerb, with gaps."""
    share = dice.number(0.25, 0.75)
    for along, start, end, line in (
        (True, block.u0, block.u1, block.v0 - 3),
        (True, block.u0, block.u1, block.v1 + 1),
        (False, block.v0, block.v1, block.u0 - 3),
        (False, block.v0, block.v1, block.u1 + 1),
    ):
        start, end = max(start, 0), end
        length = end - start - 14
        if length < 7 or line < 0:
            continue
        count = length // 7
        taken = np.repeat(dice.numbers(count) < share, 7)
        taken.reshape(count, 7)[:, 5:] = False
        colours = np.repeat(tones.CAR + dice.wholes(count, 0, tones.CAR_LEVELS), 7)
        first = start + 7
        plane = canvas.tone if along else canvas.tone.T
        strip = plane[line : line + 2, first : first + 7 * count]
        room = strip.shape[1]
        np.copyto(strip, colours[:room].astype(np.uint8), where=taken[:room])


def _stand(
    canvas: Canvas,
    rects: Rects,
    heights: NDArray[np.float64],
    room: Room,
    dice: Dice,
    *,
    roof: str,
    margin: float = 3.0,
) -> Rects:
    """Puts up those buildings that fit: first all shadows, then all roofs."""
    fit = (
        room.fits(rects, margin) & (rects[:, 2] > rects[:, 0] + 2) & (rects[:, 3] > rects[:, 1] + 2)
    )
    if (~fit).any():
        rects, heights = _with_annexes(rects, heights, fit, room, margin)
    else:
        rects, heights = rects[fit], heights[fit]
    count = len(rects)
    for (u0, v0, u1, v1), height in zip(rects.tolist(), heights.tolist(), strict=True):
        canvas.shade(u0, v0, u1, v1, height)
    levels = _roof_levels(count, roof, dice)
    draws = dice.numbers(count)
    for (u0, v0, u1, v1), level, draw in zip(
        rects.tolist(), levels.tolist(), draws.tolist(), strict=True
    ):
        u0, v0 = max(u0, 0), max(v0, 0)
        _roof(canvas, u0, v0, u1, v1, level, draw, roof)
        canvas.ground[v0:v1, u0:u1] = tones.BUILDING
    return rects


def _with_annexes(
    rects: Rects, heights: NDArray[np.float64], fit: NDArray[np.bool_], room: Room, margin: float
) -> tuple[Rects, NDArray[np.float64]]:
    """The buildings that fit, and those quarters of the others that do."""
    u0, v0, u1, v1 = rects[~fit].T
    u, v = (u0 + u1) // 2, (v0 + v1) // 2
    quarters = np.concatenate(
        [np.stack(q, 1) for q in ((u0, v0, u, v), (u, v0, u1, v), (u0, v, u, v1), (u, v, u1, v1))]
    )
    low = np.tile(heights[~fit] * 0.6, 4)
    good = room.fits(quarters, margin)
    good &= (quarters[:, 2] > quarters[:, 0] + 4) & (quarters[:, 3] > quarters[:, 1] + 4)
    return np.concatenate([rects[fit], quarters[good]]), np.concatenate([heights[fit], low[good]])


def _clutter(canvas: Canvas, block: Block, dice: Dice) -> None:
    """Sheds, patios, vegetable plots, worn lawn: nothing in a yard is plain."""
    u0, v0, u1, v1 = block.u0 + 4, block.v0 + 4, block.u1 - 4, block.v1 - 4
    count = max(0, (u1 - u0) * (v1 - v0) // 170)
    u, v = dice.wholes(count, u0, u1 - 2), dice.wholes(count, v0, v1 - 2)
    wide, deep = dice.wholes(count, 2, 11), dice.wholes(count, 2, 9)
    palette = _CLUTTER[dice.wholes(count, 0, len(_CLUTTER))]
    right, bottom = np.minimum(u + wide, u1), np.minimum(v + deep, v1)
    tone = canvas.tone
    for a, b, c, d, level in zip(
        np.maximum(u, 0).tolist(), np.maximum(v, 0).tolist(), right.tolist(), bottom.tolist(),
        palette.tolist(), strict=True,
    ):  # fmt: skip
        if c > 0 and d > 0:
            tone[b:d, a:c] = level


_CLUTTER = np.array(
    [tones.SOIL + level for level in range(6)]
    + [tones.GRASS + level for level in range(6)]
    + [tones.CONCRETE, tones.CONCRETE + 1, tones.CONCRETE + 3, tones.ASPHALT + 1, tones.ROOF + 8]
    + [tones.SHADOW + tones.SOIL + 3, tones.SHADOW + tones.GRASS + 4]
)


def _roof_levels(count: int, roof: str, dice: Dice) -> NDArray[np.int64]:
    """Tones of roofs: many bright membranes in the city, dull shingles in the suburbs."""
    draw, detail = dice.numbers(count), dice.numbers(count)
    if roof == "gable":
        grey = tones.ROOF + 3 + (detail * 9).astype(np.int64)
        return np.where(draw < 0.45, tones.BROWN + 1 + (detail * 7).astype(np.int64), grey)
    bright = tones.ROOF + 13 + (detail * 9).astype(np.int64)
    dull = tones.ROOF + 5 + (detail * 7).astype(np.int64)
    dark = np.where(detail < 0.7, tones.ROOF + 1 + (detail * 4).astype(np.int64), tones.BROWN + 3)
    share = 0.62 if roof == "shed" else 0.46
    return np.where(draw < share, bright, np.where(draw < 0.8, dull, dark))


def _roof(
    canvas: Canvas, u0: int, v0: int, u1: int, v1: int, level: int, draw: float, roof: str
) -> None:
    tone = canvas.tone
    tone[v0:v1, u0:u1] = level
    width, depth = u1 - u0, v1 - v0
    if roof == "gable":
        # Ridge along the longer side; the slope away from the sun is darker.
        darker = max(level - 2, tones.BROWN if level >= tones.BROWN else tones.ROOF)
        if width >= depth:
            half = (v0 + v1) // 2
            away = slice(v0, half) if canvas.shadow[1] < 0 else slice(half, v1)
            tone[away, u0:u1] = darker
        else:
            half = (u0 + u1) // 2
            away = slice(u0, half) if canvas.shadow[0] < 0 else slice(half, u1)
            tone[v0:v1, away] = darker
        return
    if width < 5 or depth < 5:
        return
    edge = min(level + 2, tones.ROOF + tones.ROOF_LEVELS - 1) if level < tones.BROWN else level + 1
    tone[v0, u0:u1] = edge
    tone[v0:v1, u0] = edge
    # Stairheads and machines, with their shadows.
    for number in range(1 + width * depth // 260):
        chance = (draw * (37 + 11 * number)) % 1.0
        if chance > 0.8:
            continue
        at_u = u0 + 2 + int(chance * 997) % max(width - 4, 1)
        at_v = v0 + 2 + int(chance * 7919) % max(depth - 4, 1)
        size = 2 + int(chance * 3571) % 2
        tone[at_v - 1 : at_v + size - 1, at_u - 1 : at_u + size] |= 128
        tone[at_v : at_v + 2, at_u : at_u + size] = tones.ROOF + 4 + int(chance * 9973) % 17
    if draw < 0.3 and width > 12 and depth > 8:
        part = level - 4 if level % 2 else level + 2
        part = min(max(part, tones.ROOF), tones.ROOF + tones.ROOF_LEVELS - 1)
        if level < tones.BROWN:
            tone[v0 + 1 : v1 - 1, u0 + width // 2 : u1 - 1] = part


def _yard_trees(
    canvas: Canvas,
    block: Block,
    room: Room,
    dice: Dice,
    *,
    per_area: float,
    radius: tuple[int, int],
) -> None:
    area = (block.u1 - block.u0) * (block.v1 - block.v0)
    count = int(area * per_area)
    places = np.stack(
        [
            dice.numbers(count, block.u0, block.u1).astype(np.int64),
            dice.numbers(count, block.v0, block.v1).astype(np.int64),
        ],
        axis=1,
    )
    radii = dice.wholes(count, radius[0], radius[1] + 1)
    inside = (places >= 0).all(axis=1)
    inside &= (places[:, 0] < canvas.tone.shape[1]) & (places[:, 1] < canvas.tone.shape[0])
    places, radii = places[inside], radii[inside]
    # Trees stand in yards and on pavements; few hang over a roof.
    ground = canvas.ground[places[:, 1], places[:, 0]]
    free = (ground != tones.BUILDING) & (ground != tones.ROAD)
    free &= room.at(places[:, 0], places[:, 1]) > 2.0
    canvas.trees(places[free], radii[free], dice)


def _lots(start: int, end: int, low: float, high: float, dice: Dice) -> NDArray[np.int64]:
    """Borders of lots between ``start`` and ``end``, each ``low`` to ``high`` wide."""
    count = max(1, int((end - start) / ((low + high) / 2.0)))
    widths = dice.numbers(count, low, high)
    at = np.concatenate([_ZERO, np.cumsum(widths)])
    return np.asarray(start + np.rint(at * ((end - start) / at[-1])), np.int64)


def _two_rows(
    block: Block,
    lots: tuple[float, float],
    depth: tuple[float, float],
    setback: int,
    gap: int,
    dice: Dice,
) -> Rects:
    """Houses back to back: one row along each long side."""
    rects = []
    for near in (True, False):
        at = _lots(block.u0 + 4, block.u1 - 4, *lots, dice)
        count = len(at) - 1
        usual = dice.number(*depth)
        deep = np.rint(usual + dice.numbers(count, -2.0, 2.5)).astype(np.int64)
        deep = np.minimum(deep, (block.v1 - block.v0) // 2 - setback - 2)
        front = np.full(count, (block.v0 + setback) if near else (block.v1 - setback))
        top, bottom = (front, front + deep) if near else (front - deep, front)
        kept = dice.numbers(count) > 0.06
        rects.append(
            np.stack([at[:-1] + gap // 2, top, at[1:] - (gap - gap // 2), bottom], 1)[kept]
        )
    return np.concatenate(rects)


def _rows(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    _clutter(canvas, block, dice)
    rects = _two_rows(block, (7.0, 9.0), (14.0, 19.0), dice.whole(4, 8), 0, dice)
    # Neighbours often share a roof colour: whole terraces were built at once.
    _stand(canvas, rects, dice.numbers(len(rects), 3.0, 6.0), room, dice, roof="flat")
    _yard_trees(canvas, block, room, dice, per_area=1 / 190.0, radius=(2, 4))


def _apartments(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    _clutter(canvas, block, dice)
    depth = (block.v1 - block.v0) / 2.0 - 8.0
    rects = _two_rows(block, (18.0, 34.0), (depth - 6.0, depth), 4, dice.whole(1, 4), dice)
    kept = _stand(canvas, rects, dice.numbers(len(rects), 7.0, 14.0), room, dice, roof="flat")
    _light_wells(canvas, kept, dice)
    _yard_trees(canvas, block, room, dice, per_area=1 / 230.0, radius=(2, 4))


def _light_wells(canvas: Canvas, rects: Rects, dice: Dice) -> None:
    """Courts cut into deep buildings, dark at the bottom, open on one side."""
    draws = dice.numbers(len(rects))
    for (u0, v0, u1, v1), draw in zip(rects.tolist(), draws.tolist(), strict=True):
        if u1 - u0 < 16 or draw > 0.75 or u0 < 0 or v0 < 0:
            continue
        middle, half = (u0 + u1) // 2, 2 + int(draw * 31) % 2
        deep = (v1 - v0) * 3 // 5
        span = slice(v0, v0 + deep) if draw < 0.38 else slice(v1 - deep, v1)
        canvas.tone[span, middle - half : middle + half] = tones.SHADOW + tones.CONCRETE
        canvas.ground[span, middle - half : middle + half] = tones.LAND


def _downtown(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    _clutter(canvas, block, dice)
    depth = (block.v1 - block.v0) / 2.0 - 5.0
    rects = _two_rows(block, (24.0, 52.0), (depth - 5.0, depth), 4, 1, dice)
    heights = dice.numbers(len(rects), 10.0, 22.0) + 22.0 * (dice.numbers(len(rects)) > 0.85)
    kept = _stand(canvas, rects, heights, room, dice, roof="flat")
    _light_wells(canvas, kept, dice)
    _yard_trees(canvas, block, room, dice, per_area=1 / 900.0, radius=(2, 3))


def _suburb(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    depth = (block.v1 - block.v0) / 2.0
    canvas.fill(
        block.u0 + 3, block.v0 + 3, block.u1 - 3, block.v1 - 3, tones.GRASS + dice.whole(1, 5)
    )
    rects = _two_rows(
        block, (13.0, 17.0), (12.0, min(18.0, depth - 10.0)), dice.whole(6, 10), 4, dice
    )
    kept = _stand(canvas, rects, dice.numbers(len(rects), 2.5, 4.5), room, dice, roof="gable")
    for u0, v0, _, v1 in kept.tolist():
        canvas.fill(u0 - 3, v0, u0 - 1, v1, tones.CONCRETE + 1)  # driveway
    _yard_trees(canvas, block, room, dice, per_area=1 / 110.0, radius=(2, 5))


def _industry(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    _clutter(canvas, block, dice)
    rects = _two_rows(block, (40.0, 95.0), (30.0, (block.v1 - block.v0) / 2.0 - 4.0), 5, 3, dice)
    kept = _stand(canvas, rects, dice.numbers(len(rects), 4.0, 8.0), room, dice, roof="shed")
    for u0, v0, u1, v1 in kept.tolist():
        if dice.chance(0.5):  # skylights
            for at in range(max(u0, 0) + 5, u1 - 3, 7):
                canvas.tone[max(v0, 0) + 4 : v1 - 4, at] = tones.ROOF + 8
    _lorries(canvas, block, room, dice)
    _yard_trees(canvas, block, room, dice, per_area=1 / 1500.0, radius=(2, 4))


def _lorries(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    """Trailers side by side in the yards."""
    for _ in range((block.u1 - block.u0) * (block.v1 - block.v0) // 5000):
        u, v = dice.whole(block.u0 + 6, block.u1 - 40), dice.whole(block.v0 + 6, block.v1 - 20)
        count = dice.whole(3, 10)
        rect = np.array([[u, v, u + 4 * count, v + 12]])
        if u < 0 or v < 0 or not room.fits(rect, 2.0)[0]:
            continue
        if (canvas.ground[v : v + 12, u : u + 4 * count] == tones.BUILDING).any():
            continue
        canvas.fill(u - 2, v - 3, u + 4 * count + 2, v + 15, tones.CONCRETE + dice.whole(0, 2))
        for number in range(count):
            if dice.chance(0.8):
                at = u + 4 * number
                canvas.fill(at - 1, v - 1, at + 2, v + 11, tones.SHADOW + tones.CONCRETE)
                canvas.fill(at, v, at + 3, v + 12, tones.ROOF + 9 + dice.whole(0, 13))


def _towers(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    """Housing in a park: cross-shaped towers among lawns, trees and car parks."""
    canvas.fill(
        block.u0 + 3, block.v0 + 3, block.u1 - 3, block.v1 - 3, tones.GRASS + dice.whole(0, 3)
    )
    rects, step = [], dice.whole(68, 84)
    for u in range(block.u0 + 14, block.u1 - 48, step):
        for v in range(block.v0 + 12, block.v1 - 48, step):
            du, dv, arm = dice.whole(0, 12), dice.whole(0, 12), dice.whole(9, 13)
            length = dice.whole(34, 46)
            middle = (length - arm) // 2
            rects.append((u + du, v + dv + middle, u + du + length, v + dv + middle + arm))
            rects.append((u + du + middle, v + dv, u + du + middle + arm, v + dv + length))
    if rects:
        found = np.array(rects, np.int64)
        _stand(canvas, found, np.full(len(found), dice.number(16.0, 26.0)), room, dice, roof="flat")
    _yard_trees(canvas, block, room, dice, per_area=1 / 75.0, radius=(3, 5))


def _green(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    """A small park: lawn, trees around, often a ball field."""
    u0, v0, u1, v1 = block.u0 + 5, block.v0 + 5, block.u1 - 5, block.v1 - 5
    canvas.fill(u0, v0, u1, v1, tones.GRASS + dice.whole(2, 6))
    if dice.chance(0.6) and u1 - u0 > 60 and v1 - v0 > 46:
        at = u0 + dice.whole(4, max(5, u1 - u0 - 56))
        canvas.fill(at, v0 + 4, at + 50, v0 + 40, tones.COURT + dice.whole(0, 4), tones.PITCH)
    if dice.chance(0.5) and u1 - u0 > 120:
        canvas.fill(u1 - 34, v1 - 34, u1 - 6, v1 - 6, tones.INFIELD + dice.whole(0, 3), tones.SAND)
    _yard_trees(canvas, block, room, dice, per_area=1 / 130.0, radius=(3, 5))


def _campus(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    rects = []
    for u in range(block.u0 + 8, block.u1 - 40, 62):
        for v in range(block.v0 + 8, block.v1 - 26, 52):
            wide, deep = dice.whole(34, 52), dice.whole(14, 20)
            rects += [
                (u, v, u + wide, v + deep),
                (u, v + deep, u + 14, v + deep + dice.whole(6, 20)),
            ]
    if rects:
        found = np.array(rects, np.int64)
        found[:, 3] = np.minimum(found[:, 3], block.v1 - 6)
        _stand(canvas, found, np.full(len(found), 8.0), room, dice, roof="flat")
    _yard_trees(canvas, block, room, dice, per_area=1 / 300.0, radius=(3, 5))


def _parking(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    canvas.fill(block.u0 + 4, block.v0 + 4, block.u1 - 4, block.v1 - 4, tones.ASPHALT + 3)
    for v in range(block.v0 + 8, block.v1 - 12, 15):
        for u in range(block.u0 + 8, block.u1 - 10, 3):
            if u > 0 and v > 0 and dice.chance(0.6):
                canvas.fill(u, v, u + 2, v + 5, tones.CAR + dice.whole(0, tones.CAR_LEVELS))


_GROUND = {
    "rows": (tones.LAND, tones.SOIL),
    "apartments": (tones.LAND, tones.SOIL),
    "downtown": (tones.LAND, tones.CONCRETE),
    "suburb": (tones.LAND, tones.GRASS),
    "industry": (tones.GREY, tones.ASPHALT + 2),
    "towers": (tones.LAND, tones.GRASS),
    "green": (tones.PARK, tones.GRASS),
    "campus": (tones.CAMPUS, tones.CONCRETE),
    "hospital": (tones.HOSPITAL, tones.CONCRETE),
    "parking": (tones.GREY, tones.ASPHALT),
}
_USES = {
    "rows": _rows,
    "apartments": _apartments,
    "downtown": _downtown,
    "suburb": _suburb,
    "industry": _industry,
    "towers": _towers,
    "green": _green,
    "campus": _campus,
    "hospital": _campus,
    "parking": _parking,
}
