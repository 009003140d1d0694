"""Paints a large park or a forest: meadows, woods, winding paths, a lake, ball fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Canvas
from tilemapper.report.city.dice import Dice, spline_noise
from tilemapper.report.city.room import ROOM_STEP, Room


def paint_park(canvas: Canvas, room: Room, dice: Dice, *, wild: bool) -> None:
    """Covers the whole sheet with parkland; ``wild``: a forest, without lake and fields."""
    height, width = canvas.tone.shape
    canvas.ground[:] = tones.PARK
    density = _woods(height, width, dice)  # on every 8th pixel
    dry = _magnified(density)[:height, :width]
    level = np.clip(5.0 - 4.0 * dry, 0, 7).astype(np.uint8)
    canvas.tone[:] = tones.GRASS + level
    canvas.ground[(dry < 0.45) if wild else (dry > 0.93)] = tones.FOREST
    middle = _roomiest(room)
    if not wild:
        _fields(canvas, room, dice)
    for _ in range(3 if wild else 7):
        _path(canvas, dice)
    if not wild:
        _lake(canvas, middle, min(120.0, _room_there(room, middle) * 0.42), dice)
    _plant(canvas, room, density, dice, wild=wild)


def _woods(height: int, width: int, dice: Dice) -> NDArray[np.float64]:
    """Density of trees in [0, 1], on every 8th pixel."""
    rows, columns = np.arange(height // 8 + 2) * 8.0, np.arange(width // 8 + 2) * 8.0
    keys = [dice.whole(0, 1 << 40) for _ in range(4)]
    a = spline_noise(keys[0], rows, 130.0)[:, None] + spline_noise(keys[1], columns, 150.0)
    diagonal = rows[:, None] * 0.7 + columns * 0.7
    other = rows[:, None] * 0.7 - columns * 0.7
    b = spline_noise(keys[2], diagonal, 110.0) + spline_noise(keys[3], other, 170.0)
    return np.clip(0.5 + 0.75 * (a + b), 0.0, 1.0)


def _magnified(coarse: NDArray[np.float64]) -> NDArray[np.float32]:
    """Eight times as fine, linear between."""
    share = np.arange(8, dtype=np.float32) / 8
    small = coarse.astype(np.float32)
    rows = small[:-1, None] + (small[1:] - small[:-1])[:, None] * share[None, :, None]
    rows = rows.reshape(-1, small.shape[1])
    step = (rows[:, 1:] - rows[:, :-1])[..., None] * share
    return np.asarray((rows[:, :-1, None] + step).reshape(len(rows), -1))


def _roomiest(room: Room) -> tuple[int, int]:
    row, column = np.unravel_index(int(np.argmax(room.distance)), room.distance.shape)
    return int(column) * ROOM_STEP, int(row) * ROOM_STEP


def _room_there(room: Room, place: tuple[int, int]) -> float:
    return float(room.at(np.array([place[0]]), np.array([place[1]]))[0])


def _lake(canvas: Canvas, middle: tuple[int, int], radius: float, dice: Dice) -> None:
    if radius < 20.0:
        return
    reach = int(radius * 1.6)
    u0, v0 = max(middle[0] - reach, 0), max(middle[1] - reach, 0)
    part = (slice(v0, middle[1] + reach), slice(u0, middle[0] + reach))
    shape = canvas.tone[part].shape
    v = np.arange(shape[0])[:, None] + v0 - middle[1] + 0.0
    u = np.arange(shape[1])[None, :] + u0 - middle[0] + 0.0
    keys = [dice.whole(0, 1 << 40) for _ in range(2)]
    squeeze = dice.number(0.6, 0.85)
    wave = 34.0 * (spline_noise(keys[0], u + 0.4 * v, 46.0) + spline_noise(keys[1], v, 52.0))
    away = np.sqrt(u * u * squeeze + v * v / squeeze) + wave - radius
    tone, ground = canvas.tone[part], canvas.ground[part]
    np.copyto(tone, np.uint8(tones.SOIL + 2), where=away < 3.0)
    np.copyto(tone, np.uint8(tones.DEEP + 3), where=away < 0.0)
    np.copyto(ground, np.uint8(tones.WATER), where=away < 0.0)


def _fields(canvas: Canvas, room: Room, dice: Dice) -> None:
    """Ball fields: a lighter pitch with a sandy diamond."""
    height, width = canvas.tone.shape
    found = 0
    for _ in range(40):
        u, v = dice.whole(0, max(width - 130, 1)), dice.whole(0, max(height - 110, 1))
        rect = np.array([[u, v, u + 120, v + 100]])
        if found >= 4 or not room.fits(rect, 14.0)[0]:
            continue
        found += 1
        canvas.fill(u, v, u + 120, v + 100, tones.GRASS + 5, tones.PITCH)
        rows, columns = np.mgrid[:44, :44]
        arc = rows * rows + columns * columns < 42 * 42
        inner = (rows < 26) & (columns < 26) & ~((rows < 4) | (columns < 4))
        tone, ground = (
            canvas.tone[v + 6 : v + 50, u + 6 : u + 50],
            canvas.ground[v + 6 : v + 50, u + 6 : u + 50],
        )
        np.copyto(tone, np.uint8(tones.INFIELD + 1), where=arc & ~inner)
        np.copyto(ground, np.uint8(tones.SAND), where=arc)


def _path(canvas: Canvas, dice: Dice) -> None:
    """A winding path across the sheet, along u or along v."""
    flip = dice.chance(0.5)
    tone = canvas.tone.T if flip else canvas.tone
    ground = canvas.ground.T if flip else canvas.ground
    height, width = tone.shape
    at = np.arange(width)
    middle = dice.number(0.1, 0.9) * height + dice.number(-0.4, 0.4) * (at - width / 2.0)
    middle = middle + 90.0 * spline_noise(dice.whole(0, 1 << 40), at, 140.0)
    road = dice.chance(0.3)
    half = 4.5 if road else 2.0
    slope = np.abs(np.diff(middle, append=middle[-1:]))
    reach = half * np.sqrt(1.0 + slope * slope)
    for column, low, high in zip(
        at.tolist(), np.rint(middle - reach).tolist(), np.rint(middle + reach).tolist(), strict=True
    ):
        low, high = max(int(low), 0), int(high)
        if high <= low:
            continue
        tone[low:high, column] = (tones.ASPHALT + 3) if road else (tones.CONCRETE + 2)
        ground[low:high, column] = tones.ROAD if road else tones.OUTLINE


def _plant(
    canvas: Canvas, room: Room, density: NDArray[np.float64], dice: Dice, *, wild: bool
) -> None:
    height, width = canvas.tone.shape
    count = height * width // (42 if wild else 80)
    u = dice.wholes(count, 8, max(width - 8, 9))
    v = dice.wholes(count, 8, max(height - 8, 9))
    wanted = density[v // 8, u // 8] + (0.6 if wild else -0.12)
    ground = canvas.ground[v, u]
    free = (ground == tones.PARK) | (ground == tones.FOREST) | (ground == tones.OUTLINE)
    free &= (dice.numbers(count) < wanted) & (room.at(u, v) > -14.0)
    places = np.stack([u[free], v[free]], axis=1)
    canvas.trees(places, dice.wholes(len(places), 3, 7), dice)
