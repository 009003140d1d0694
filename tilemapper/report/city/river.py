"""Lays rivers into a window: water, banks with promenades, piers, riverside roads, bridges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.dice import Dice, hashed, key_of, spline_noise
from tilemapper.report.city.frame import Beside, Frame
from tilemapper.report.city.plan import RIVERSIDE, Plan
from tilemapper.report.city.streets import Avenues
from tilemapper.report.city.textures import Textures, part

PROMENADE = 20  # pixels from the water to the riverside road
_PIER = 52  # how far piers reach into the river
_BRIDGES = 1000  # mean distance of two bridges
_BRIDGE = 8  # a bridge's half width

_PATH = np.uint16(tones.CONCRETE + 2 | tones.LAND << 8)
_STONES = np.uint16(tones.SOIL + 2 | tones.LAND << 8)
_DECK = np.uint16(tones.ASPHALT + 3 | tones.ROAD << 8)
_KERB = np.uint16(tones.CONCRETE + 2 | tones.OUTLINE << 8)
_WHARF = np.uint16(tones.CONCRETE + 1 | tones.GREY << 8)


def lay_rivers(
    layers: NDArray[np.uint16],
    plan: Plan,
    frame: Frame,
    textures: Textures,
    avenues: Avenues | None,
) -> NDArray[np.bool_] | None:
    """Draws rivers over the districts; avenues end at them. Returns where there is open water."""
    water = None
    reach = int(plan.river.width[1]) + RIVERSIDE + 12
    for line in plan.river.lines_near(*frame.corners(), reach=reach):
        beside = frame.beside(plan.river, line, reach)
        if beside is None:
            continue
        t = beside.t0 + np.arange(int(beside.t.max()) + 1)
        bridges = _bridges(plan, line, t)
        banks, piers = _banks(plan, line, t, free=bridges == 0)
        side = beside.t + (beside.n4 > 0) * np.int32(len(t))
        away = np.abs(beside.n4) - banks.reshape(-1)[side]
        if int(away.min()) >= 4 * RIVERSIDE:
            continue
        wet = away < 0
        if piers.any():
            wet &= ~((away > -4 * _PIER) & piers.reshape(-1)[side])
        _lay_banks(layers, frame, textures, away)
        np.copyto(layers, part(textures.water, *_window(frame)), where=wet)
        _lay_bridges(layers, beside, away, bridges)
        if avenues is not None:
            avenues.where &= away >= 4 * RIVERSIDE
        water = wet if water is None else water | wet
    return water


def _window(frame: Frame) -> tuple[int, int, int, int]:
    return frame.x0, frame.y0, frame.width, frame.height


def _banks(
    plan: Plan, line: int, t: NDArray[np.int64], *, free: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Quarter pixels from the middle to either bank, (2, len(t)), and where piers stand."""
    key, banks, piers = plan.river.key, [], []
    for side in (0, 1):
        ragged = 9.0 * spline_noise(key_of(key, line, 3, side), t, 55.0)
        harbour = hashed(key_of(key, line, 4, side), t // 640) < 0.3
        pier = hashed(key_of(key, line, 5, side), t // 52) < 0.6
        piers.append(harbour & pier & (np.abs(t % 52 - 26) < 10) & free)
        half_width = plan.river.half_width(line, t) + np.where(harbour, 0.0, ragged)
        banks.append(np.rint(4 * half_width).astype(np.int32))
    return np.stack(banks), np.stack(piers)


def _bridges(plan: Plan, line: int, t: NDArray[np.int64]) -> NDArray[np.uint8]:
    """At each place along the river: 0 none, 1 a bridge's roadway, 2 its edge, 3 its shadow."""
    kinds = np.zeros(len(t), np.uint8)
    for number in range(int(t[0]) // _BRIDGES, int(t[-1]) // _BRIDGES + 1):
        dice = Dice(plan.river.key, line, 6, number)
        middle = number * _BRIDGES + dice.whole(60, _BRIDGES - 60)
        x, y = plan.river.place(line, np.array([middle - 60, middle, middle + 60]))
        clear = min(float(family.distance(x, y).min()) for family in plan.motorways)
        if clear < 50.0:
            continue
        along = t - middle
        kinds[np.abs(along - 7) <= _BRIDGE] = 3
        kinds[np.abs(along) <= _BRIDGE] = 2
        kinds[np.abs(along) <= _BRIDGE - 2] = 1
    return kinds


def _lay_banks(
    layers: NDArray[np.uint16], frame: Frame, textures: Textures, away: NDArray[np.int32]
) -> None:
    bank = away < 4 * RIVERSIDE
    np.copyto(layers, _KERB, where=bank)
    np.copyto(layers, _DECK, where=bank & (away >= 4 * PROMENADE + 4) & (away < 4 * RIVERSIDE - 4))
    woods = part(textures.woods, *_window(frame))
    np.copyto(layers, woods, where=away < 4 * PROMENADE)
    np.copyto(layers, _PATH, where=away < 4 * 7)
    np.copyto(layers, _STONES, where=away < 4 * 3)
    np.copyto(layers, _WHARF, where=away < 0)  # what water does not cover: piers


def _lay_bridges(
    layers: NDArray[np.uint16],
    beside: Beside,
    away: NDArray[np.int32],
    bridges: NDArray[np.uint8],
) -> None:
    if not bridges.any():
        return
    kinds = np.where(away < 4 * PROMENADE + 4, bridges[beside.t], 0)
    layers |= np.where((kinds == 3) & (away < 0), np.uint16(128), np.uint16(0))
    np.copyto(layers, _KERB, where=kinds == 2)
    np.copyto(layers, _DECK, where=kinds == 1)
