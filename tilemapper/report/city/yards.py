"""What lies and grows around the buildings of a block: cars, trees, sheds, patios, trailers."""

from __future__ import annotations

import numpy as np

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.room import Block, Room

_CLUTTER = np.array(
    [tones.SOIL + level for level in range(6)]
    + [tones.GRASS + level for level in range(6)]
    + [
        tones.CONCRETE,
        tones.CONCRETE + 1,
        tones.CONCRETE + 3,
        tones.CONCRETE + 5,
        tones.ROOF + 8,
        tones.ROOF + 14,
    ]
    + [tones.SHADOW + tones.SOIL + 3, tones.SHADOW + tones.GRASS + 4]
)


def park_cars(canvas: Canvas, block: Block, dice: Dice) -> None:
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


def clutter(canvas: Canvas, block: Block, dice: Dice) -> None:
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


def yard_trees(
    canvas: Canvas,
    block: Block,
    room: Room,
    dice: Dice,
    *,
    per_area: float,
    radius: tuple[int, int],
) -> None:
    """Trees anywhere in the block where nothing is built, ``per_area`` of them a pixel."""
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


def lorries(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
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


def street_trees(canvas: Canvas, block: Block, room: Room, dice: Dice) -> None:
    """Trees on the pavement all around the block, some of them hanging over the street."""
    share = dice.number(0.15, 0.6)
    u = np.arange(block.u0 + 4, block.u1 - 4, 9)
    v = np.arange(block.v0 + 4, block.v1 - 4, 9)
    sides = [
        np.stack(np.broadcast_arrays(u, block.v0 + 1), axis=1),
        np.stack(np.broadcast_arrays(u, block.v1 - 2), axis=1),
        np.stack(np.broadcast_arrays(block.u0 + 1, v), axis=1),
        np.stack(np.broadcast_arrays(block.u1 - 2, v), axis=1),
    ]
    places = np.concatenate(sides)
    kept = dice.numbers(len(places)) < share
    kept &= room.at(places[:, 0], places[:, 1]) > 0.0
    places = places[kept] + dice.wholes(int(kept.sum()), -2, 3)[:, None]
    canvas.trees(places, dice.wholes(len(places), 2, 5), dice)
