"""Paints one block of a district after its use: terraces, flats, villas, works, towers, greens."""

from __future__ import annotations

import numpy as np

from tilemapper.report.city import tones
from tilemapper.report.city.buildings import light_wells, stand, two_rows
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.room import Block, Room
from tilemapper.report.city.yards import clutter, lorries, park_cars, street_trees, yard_trees

_USUAL = (("green", 0.045), ("campus", 0.035), ("hospital", 0.012), ("parking", 0.02))
# A block as large as two would have a void in the middle if houses only lined its streets.
_MERGED = (("green", 0.25), ("campus", 0.3), ("hospital", 0.1), ("parking", 0.05), ("towers", 0.3))


def scatter(kind: str, dice: Dice, *, merged: bool) -> str:
    """What a block of such a district is used for: mostly what the district is known for."""
    draw = dice.number()
    for use, share in _MERGED if merged and kind not in ("industry", "towers") else _USUAL:
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
    park_cars(canvas, block, dice)
    if block.use in ("rows", "apartments", "suburb", "campus", "towers"):
        street_trees(canvas, block, room, dice)
    _USES[block.use](canvas, block, room, dice)


def _rows(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    clutter(canvas, block, dice)
    rects = two_rows(block, (7.0, 9.0), (14.0, 19.0), dice.whole(4, 8), 0, dice)
    # Neighbours often share a roof colour: whole terraces were built at once.
    stand(canvas, rects, dice.numbers(len(rects), 3.0, 6.0), room, dice, roof="flat")
    yard_trees(canvas, block, room, dice, per_area=1 / 190.0, radius=(2, 4))


def _apartments(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    clutter(canvas, block, dice)
    depth = (block.v1 - block.v0) / 2.0 - 8.0
    rects = two_rows(block, (18.0, 34.0), (depth - 6.0, depth), 4, dice.whole(1, 4), dice)
    kept = stand(canvas, rects, dice.numbers(len(rects), 7.0, 14.0), room, dice, roof="flat")
    light_wells(canvas, kept, dice)
    yard_trees(canvas, block, room, dice, per_area=1 / 230.0, radius=(2, 4))


def _downtown(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    clutter(canvas, block, dice)
    depth = (block.v1 - block.v0) / 2.0 - 5.0
    rects = two_rows(block, (24.0, 52.0), (depth - 5.0, depth), 4, 1, dice)
    heights = dice.numbers(len(rects), 10.0, 22.0) + 22.0 * (dice.numbers(len(rects)) > 0.85)
    kept = stand(canvas, rects, heights, room, dice, roof="flat")
    light_wells(canvas, kept, dice)
    yard_trees(canvas, block, room, dice, per_area=1 / 900.0, radius=(2, 3))


def _suburb(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    depth = (block.v1 - block.v0) / 2.0
    canvas.fill(
        block.u0 + 3, block.v0 + 3, block.u1 - 3, block.v1 - 3, tones.GRASS + dice.whole(1, 5)
    )
    rects = two_rows(
        block, (13.0, 17.0), (12.0, min(18.0, depth - 10.0)), dice.whole(6, 10), 4, dice
    )
    kept = stand(canvas, rects, dice.numbers(len(rects), 2.5, 4.5), room, dice, roof="gable")
    for u0, v0, _, v1 in kept.tolist():
        canvas.fill(u0 - 3, v0, u0 - 1, v1, tones.CONCRETE + 1)  # driveway
    yard_trees(canvas, block, room, dice, per_area=1 / 110.0, radius=(2, 5))


def _industry(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    clutter(canvas, block, dice)
    rects = two_rows(block, (40.0, 95.0), (30.0, (block.v1 - block.v0) / 2.0 - 4.0), 5, 3, dice)
    kept = stand(canvas, rects, dice.numbers(len(rects), 4.0, 8.0), room, dice, roof="shed")
    for u0, v0, u1, v1 in kept.tolist():
        if dice.chance(0.5):  # skylights
            for at in range(max(u0, 0) + 5, u1 - 3, 7):
                canvas.tone[max(v0, 0) + 4 : v1 - 4, at] = tones.ROOF + 8
    lorries(canvas, block, room, dice)
    yard_trees(canvas, block, room, dice, per_area=1 / 1500.0, radius=(2, 4))


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
        stand(canvas, found, np.full(len(found), dice.number(16.0, 26.0)), room, dice, roof="flat")
    yard_trees(canvas, block, room, dice, per_area=1 / 75.0, radius=(3, 5))


def _green(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    """A small park: lawn, trees around, often a ball field."""
    u0, v0, u1, v1 = block.u0 + 5, block.v0 + 5, block.u1 - 5, block.v1 - 5
    canvas.fill(u0, v0, u1, v1, tones.GRASS + dice.whole(2, 6))
    if dice.chance(0.6) and u1 - u0 > 60 and v1 - v0 > 46:
        at = u0 + dice.whole(4, max(5, u1 - u0 - 56))
        canvas.fill(at, v0 + 4, at + 50, v0 + 40, tones.COURT + dice.whole(0, 4), tones.PITCH)
    if dice.chance(0.5) and u1 - u0 > 120:
        canvas.fill(u1 - 34, v1 - 34, u1 - 6, v1 - 6, tones.INFIELD + dice.whole(0, 3), tones.SAND)
    yard_trees(canvas, block, room, dice, per_area=1 / 130.0, radius=(3, 5))


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
        stand(canvas, found, np.full(len(found), 8.0), room, dice, roof="flat")
    yard_trees(canvas, block, room, dice, per_area=1 / 300.0, radius=(3, 5))


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
