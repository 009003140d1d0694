"""Paints one district of the synthetic city: streets, blocks, and what stands on them."""

from __future__ import annotations

import numpy as np

from tilemapper.report.city import tones
from tilemapper.report.city.blocks import paint_block, scatter
from tilemapper.report.city.canvas import Canvas, Sheet
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.lines import UNIT
from tilemapper.report.city.motorway import HALF, INTERCHANGE
from tilemapper.report.city.park import paint_park
from tilemapper.report.city.plan import RIVERSIDE, District, Plan
from tilemapper.report.city.room import ROOM_STEP, Block, Room

MARGIN = 16  # pixels around the cell, so that no window reads beside the sheet

# Spacing of streets along u and v (least, greatest), their width, share of missing streets.
STREETS = {
    "rows": ((150, 230), (64, 76), 13, 0.05),
    "apartments": ((180, 260), (84, 104), 14, 0.08),
    "downtown": ((110, 170), (80, 100), 16, 0.04),
    "suburb": ((170, 260), (82, 98), 12, 0.1),
    "industry": ((150, 260), (120, 170), 13, 0.12),
    "towers": ((230, 320), (190, 260), 13, 0.1),
}


def paint_district(plan: Plan, district: District) -> Sheet:
    """The district's sheet; a pure function of the plan's seed and the district."""
    c, s = district.along[0] / UNIT, district.along[1] / UNIT
    u = [c * x + s * y for x, y in district.polygon]
    v = [c * y - s * x for x, y in district.polygon]
    u0, v0 = int(np.floor(min(u))) - MARGIN, int(np.floor(min(v))) - MARGIN
    width, height = int(max(u)) + MARGIN + 2 - u0, int(max(v)) + MARGIN + 2 - v0
    canvas = Canvas(height, width, (c, s))
    dice = Dice(plan.seed, 7, *district.cell)
    canvas.tone[:] = tones.ASPHALT + dice.whole(1, 5)
    room = _free_room(plan, district, u0, v0, height, width)
    if district.kind in ("park", "forest"):
        paint_park(canvas, room, dice, wild=district.kind == "forest")
    else:
        for block in _blocks(district.kind, height, width, dice):
            if room.most(block.u0, block.v0, block.u1, block.v1) > -12.0:
                paint_block(canvas, block, room, dice)
    canvas.plant()
    return Sheet(canvas.packed(), u0, v0, district.along)


def _free_room(plan: Plan, district: District, u0: int, v0: int, height: int, width: int) -> Room:
    c, s = district.along[0] / UNIT, district.along[1] / UNIT
    u = np.arange(0, width + ROOM_STEP, ROOM_STEP, dtype=np.float64)[None, :] + u0
    v = np.arange(0, height + ROOM_STEP, ROOM_STEP, dtype=np.float64)[:, None] + v0
    x, y = c * u - s * v, s * u + c * v
    best = np.full(x.shape, 1e9)
    sx, sy = district.site
    for other in plan.neighbours(*district.cell):
        ox, oy = plan.site(*other)
        dx, dy = float(ox - sx), float(oy - sy)
        length = float(np.sqrt(dx * dx + dy * dy))
        if length > 2200.0:
            continue
        limit = (ox * ox + oy * oy - sx * sx - sy * sy) / 2.0
        half_width = plan.avenue(district.cell, other)
        best = np.minimum(best, (limit - dx * x - dy * y) / length - half_width)
    flat_x, flat_y = plan.unwarp(x, y)
    best = np.minimum(best, plan.river.distance(flat_x, flat_y) - RIVERSIDE)
    from_first, from_second = (family.distance(flat_x, flat_y) for family in plan.motorways)
    best = np.minimum(best, np.minimum(from_first, from_second))
    best = np.minimum(best, np.maximum(from_first, from_second) - INTERCHANGE + HALF)
    return Room(best.astype(np.float32))


def _bands(length: int, spacing: tuple[int, int], dice: Dice) -> list[tuple[int, int]]:
    """Pieces of [0, length) between streets' middles."""
    at, pieces = -dice.whole(0, spacing[0]), []
    while at < length:
        step = dice.whole(*spacing)
        pieces.append((at, at + step))
        at += step
    return pieces


def _blocks(kind: str, height: int, width: int, dice: Dice) -> list[Block]:
    across, down, street, missing = STREETS[kind]
    rows = _bands(height, down, dice)
    blocks = []
    half = street // 2
    for left, right in _bands(width, across, dice):
        top = rows[0][0]
        wide = half + (4 if dice.chance(0.2) else 0)  # some avenues
        for _, bottom in rows:
            last = bottom >= height
            if not last and bottom - top < 2.2 * down[1] and dice.chance(missing):
                continue
            use = scatter(kind, dice, merged=bottom - top > 1.4 * down[1])
            blocks.append(
                Block(left + wide, top + half, right - wide, bottom - (street - half), kind, use)
            )
            top = bottom
    return blocks
