"""Puts up the buildings of a block: their outlines, roofs and shadows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.room import Block, Room

Rects = NDArray[np.int64]  # (n, 4): u0, v0, u1, v1
_ZERO = np.zeros(1)


def two_rows(
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


def _lots(start: int, end: int, low: float, high: float, dice: Dice) -> NDArray[np.int64]:
    """Borders of lots between ``start`` and ``end``, each ``low`` to ``high`` wide."""
    count = max(1, int((end - start) / ((low + high) / 2.0)))
    widths = dice.numbers(count, low, high)
    at = np.concatenate([_ZERO, np.cumsum(widths)])
    return np.asarray(start + np.rint(at * ((end - start) / at[-1])), np.int64)


def stand(
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


def light_wells(canvas: Canvas, rects: Rects, dice: Dice) -> None:
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
