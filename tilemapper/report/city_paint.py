"""Paints any window of the synthetic city: imagery and true map, the same whatever the window.

Everything is laid out in whole numbers: directions are integers times 2**14, positions quarter
pixels. So a pixel has one value, on every machine and in every window that contains it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError
from tilemapper.report import city_tones as tones
from tilemapper.report.city_canvas import Canvas
from tilemapper.report.city_dice import Dice, key_of
from tilemapper.report.city_district import Sheet, paint_district
from tilemapper.report.city_motorway import DECK, HALF, INTERCHANGE, STRETCH, paint_stretch
from tilemapper.report.city_plan import PITCH, UNIT, Family, Plan

PIECE = 512  # a window is painted in pieces that the processor's cache holds
PERIOD = 1024  # of the textures; a multiple of PIECE
_BORDER = 12  # no avenue is wider than this from its middle, pixels
_FAR, _NEAR = np.uint64(3), np.uint64(10)  # the lens: 3, 10, 3 sixteenths along each axis
_SHORE = 20
_PIER = 52  # how far piers reach into the river
_LOOP = (
    (6, np.uint16(tones.CONCRETE + 3 | tones.CASING << 8)),
    (5, np.uint16(tones.CONCRETE | tones.RAMP << 8)),
)
_PIER_LAYER = np.uint16(tones.CONCRETE + 2 | tones.GREY << 8)


class Painter:
    """The city of one seed and size. Threads may share it."""

    def __init__(self, seed: int, height: int, width: int) -> None:
        """``height``, ``width``: the city's size, pixels; it decides where the river crosses."""
        self.height, self.width = height, width
        dice = Dice(seed, 0)
        anchor = (
            min(width, 2048) * dice.number(0.55, 0.68),
            min(height, 2048) * dice.number(0.27, 0.4),
        )
        self.plan = Plan(seed, anchor)
        self._colours = tones.colour_table()
        self._map = tones.map_table()
        self._grain = np.pad(tones.grain_texture(seed, PERIOD), 1, mode="wrap")
        self._noise = _sensor_noise(seed)
        self._water = np.pad(_water_texture(seed), 1, mode="wrap")
        self._woods = np.pad(_woods_texture(seed), 1, mode="wrap")
        self._sheet = functools.lru_cache(maxsize=24)(self._paint_sheet)
        self._stretch = functools.lru_cache(maxsize=24)(functools.partial(paint_stretch, self.plan))

    def _paint_sheet(self, i: int, j: int) -> Sheet:
        return paint_district(self.plan, self.plan.district(i, j))

    def paint(
        self, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Imagery and true map of a window, both (height, width, 3) uint8."""
        satellite = np.empty((height, width, 3), np.uint8)
        truth = np.empty((height, width, 3), np.uint8)
        for top, bottom in _pieces(row, height):
            for left, right in _pieces(col, width):
                inside = slice(top - row, bottom - row), slice(left - col, right - col)
                self._piece(left, top, right - left, bottom - top, satellite[inside], truth[inside])
        return satellite, truth

    def _piece(
        self,
        x0: int,
        y0: int,
        width: int,
        height: int,
        satellite: NDArray[np.uint8],
        truth: NDArray[np.uint8],
    ) -> None:
        layers = self._layers(x0 - 1, y0 - 1, width + 2, height + 2)  # one pixel of rim to filter
        classes = layers[1:-1, 1:-1] >> np.uint16(8)
        np.take(self._map, classes, axis=0, out=truth, mode="clip")
        grain = _texture(self._grain, x0, y0, width, height, rim=2)
        index = ((layers & np.uint16(255)) << np.uint16(5)) | grain
        light = np.take(self._colours, index)  # (h + 2, w + 2) uint64, three lanes of 16 bits
        light = _FAR * (light[:, :-2] + light[:, 2:]) + _NEAR * light[:, 1:-1]
        light = _FAR * (light[:-2] + light[2:]) + _NEAR * light[1:-1]  # 256 times the colour
        light += _texture(self._noise, x0, y0, width, height, rim=0)
        lanes = light.view(np.uint16).reshape(height, width, 4)
        np.right_shift(lanes[..., :3], 8, out=satellite, casting="unsafe")

    def _layers(self, x0: int, y0: int, width: int, height: int) -> NDArray[np.uint16]:
        """Tone + 256 * class of a small window, (height, width) uint16."""
        x = np.arange(x0, x0 + width, dtype=np.int64)
        y = np.arange(y0, y0 + height, dtype=np.int64)
        shift_x, shift_y = self.plan.warp(x, y)
        bent = _Bent(
            x, y, np.rint(4 * shift_x).astype(np.int64), np.rint(4 * shift_y).astype(np.int64)
        )
        cells = self._cells_near(bent)
        first, second, gap = _two_nearest([self.plan.site(*cell) for cell in cells], bent)
        layers = self._districts(cells, first, bent)
        avenue, pair = self._avenues(layers, cells, first, second, gap)
        water = self._river(layers, x, y, cells, avenue, pair)
        self._motorways(layers, x, y, cells, avenue, pair, water)
        return layers

    def _cells_near(self, bent: _Bent) -> list[tuple[int, int]]:
        """Districts that own a pixel of the window, or come close to owning one; sorted."""
        left, right, top, bottom = bent.bounds()
        reach = 1.1 * PITCH
        found = []
        for j in range(int((top - reach) // PITCH) - 1, int((bottom + reach) // PITCH) + 2):
            for i in range(int((left - reach) // PITCH) - 1, int((right + reach) // PITCH) + 2):
                sx, sy = self.plan.site(i, j)
                near = np.hypot(max(left - sx, 0, sx - right), max(top - sy, 0, sy - bottom))
                far = np.hypot(max(sx - left, right - sx), max(sy - top, bottom - sy))
                found.append((float(near), float(far), (i, j)))
        nearest = min(far for _, far, _ in found)
        return sorted(cell for near, _, cell in found if near <= nearest + 3 * _BORDER)

    def _districts(
        self, cells: list[tuple[int, int]], first: NDArray[np.uint8], bent: _Bent
    ) -> NDArray[np.uint16]:
        layers = np.zeros(first.shape, np.uint16)
        for number in np.unique(first).tolist():
            mine = first == number
            rows, columns = _span(mine.any(axis=1)), _span(mine.any(axis=0))
            sheet = self._sheet(*cells[number])
            c, s = self.plan.district(*cells[number]).along
            u = _plane(c * bent.x4[columns] + s * bent.y_shift[columns],
                       c * bent.x_shift[rows] + s * bent.y4[rows], 16, sheet.u0)  # fmt: skip
            v = _plane(c * bent.y_shift[columns] - s * bent.x4[columns],
                       c * bent.y4[rows] - s * bent.x_shift[rows], 16, sheet.v0)  # fmt: skip
            v *= sheet.packed.shape[1]
            v += u
            found = np.take(sheet.packed.reshape(-1), v, mode="clip")
            np.copyto(layers[rows, columns], found, where=mine[rows, columns])
        return layers

    def _avenues(
        self,
        layers: NDArray[np.uint16],
        cells: list[tuple[int, int]],
        first: NDArray[np.uint8],
        second: NDArray[np.uint8],
        gap: NDArray[np.int32],
    ) -> tuple[NDArray[np.bool_] | None, NDArray[np.intp] | None]:
        """Draws the avenues along the districts' borders; returns where, and between which two."""
        count = len(cells)
        if count < 2:
            return None, None
        sites = np.array([self.plan.site(*cell) for cell in cells], np.float64)
        apart = np.sqrt(((sites[:, None] - sites[None]) ** 2).sum(axis=2)) + np.eye(count)
        near = gap < np.int32(8 * _BORDER * (apart.max() + 1))
        if not near.any():
            return None, None
        wide = np.array(
            [[self.plan.border(a, b)[0] if a != b else 0 for b in cells] for a in cells]
        )
        pair = first.astype(np.intp) * count + second
        scale = (1.0 / (2.0 * apart)).astype(np.float32).reshape(-1)
        away = (gap * scale[pair]).astype(np.int32)  # quarter pixels from the avenue's middle
        away += (4 * (_BORDER - 1 - wide)).astype(np.int32).reshape(-1)[pair]
        avenue = away < 4 * (_BORDER - 1)
        profile = _avenue_profile()
        np.copyto(layers, np.take(profile, away, mode="clip"), where=avenue)
        return avenue, pair

    def _river(
        self,
        layers: NDArray[np.uint16],
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        cells: list[tuple[int, int]],
        avenue: NDArray[np.bool_] | None,
        pair: NDArray[np.intp] | None,
    ) -> NDArray[np.bool_] | None:
        """Draws rivers and their banks; returns where there is water."""
        water = None
        for line in self.plan.river.lines_near(*_corners(x, y), reach=230.0):
            found = _across(self.plan.river, line, x, y)
            if found is None:
                continue
            t, t0, n4 = found
            at = t0 + np.arange(int(t.max()) + 1)
            banks, piers = self.plan.river.banks(line, at)
            side = t + (n4 > 0) * np.int32(len(at))
            away = np.abs(n4) - np.take(np.rint(4 * banks).astype(np.int32).reshape(-1), side)
            if int(away.min()) >= 4 * _SHORE:
                continue
            shore = away < 4 * _SHORE
            wet = away < 0
            if piers.any():
                pier = wet & (away > -4 * _PIER) & np.take(piers.reshape(-1), side)
                np.copyto(layers, _PIER_LAYER, where=pier)
                wet &= ~pier
            if avenue is not None and pair is not None:
                shore &= ~avenue
                bridges = np.array(
                    [[self.plan.border(a, b)[1] and a != b for b in cells] for a in cells]
                )
                wet &= ~(avenue & bridges.reshape(-1)[pair])
            self._bank(layers, x, y, away, shore)
            ripple = _texture(
                self._water, int(x[0]) + 1, int(y[0]) + 1, len(x) - 2, len(y) - 2, rim=2
            )
            np.copyto(layers, ripple, where=wet)
            water = wet if water is None else water | wet
        return water

    def _bank(
        self,
        layers: NDArray[np.uint16],
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        away: NDArray[np.int32],
        shore: NDArray[np.bool_],
    ) -> None:
        woods = _texture(self._woods, int(x[0]) + 1, int(y[0]) + 1, len(x) - 2, len(y) - 2, rim=2)
        np.copyto(layers, woods, where=shore)
        path = np.uint16(tones.CONCRETE + 2 | tones.LAND << 8)
        stones = np.uint16(tones.SOIL + 2 | tones.LAND << 8)
        np.copyto(layers, path, where=shore & (away < 4 * 7))
        np.copyto(layers, stones, where=shore & (away < 4 * 3))

    def _motorways(
        self,
        layers: NDArray[np.uint16],
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        cells: list[tuple[int, int]],
        avenue: NDArray[np.bool_] | None,
        pair: NDArray[np.intp] | None,
        water: NDArray[np.bool_] | None,
    ) -> None:
        laid: list[NDArray[np.int32]] = []  # places beside the motorways of the first family
        for number, family in enumerate(self.plan.motorways):
            for line in family.lines_near(*_corners(x, y), reach=INTERCHANGE + 2.0):
                found = _across(family, line, x, y)
                if found is None:
                    continue
                t, t0, n4 = found
                beside = np.abs(n4)
                inside = beside < 4 * HALF
                if water is not None:
                    inside &= ~(water & (beside > 4 * DECK))
                if avenue is not None and pair is not None:
                    inside &= ~(avenue & self._flying(cells, number)[pair])
                for other in laid:
                    self._interchange(layers, x, y, other, beside)
                    inside &= (beside <= 4 * DECK) | (other > 4 * INTERCHANGE)
                if number == 0:
                    laid.append(beside)
                if inside.any():
                    part = _span(inside.any(axis=1)), _span(inside.any(axis=0))
                    self._lay_motorway(
                        layers[part], number, line, t[part], t0, n4[part], inside[part]
                    )

    def _flying(self, cells: list[tuple[int, int]], number: int) -> NDArray[np.bool_]:
        over = [[a != b and self.plan.flies_over(a, b, number) for b in cells] for a in cells]
        return np.array(over).reshape(-1)

    def _interchange(
        self,
        layers: NDArray[np.uint16],
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        first: NDArray[np.int32],
        second: NDArray[np.int32],
    ) -> None:
        """Lawns and four loops where two motorways meet; the first one's deck stays."""
        where = (first < 4 * INTERCHANGE) & (second < 4 * INTERCHANGE) & (first > 4 * DECK)
        if not where.any():
            return
        rows, columns = _span(where.any(axis=1)), _span(where.any(axis=0))
        lawn = _texture(self._woods, int(x[0]) + 1, int(y[0]) + 1, len(x) - 2, len(y) - 2, rim=2)
        target, where = layers[rows, columns], where[rows, columns]
        np.copyto(target, lawn[rows, columns], where=where)
        u = (first[rows, columns] >> 2) - 49
        v = (second[rows, columns] >> 2) - 49
        square = u * u + v * v
        for half, layer in _LOOP:
            ring = where & (square >= (35 - half) ** 2) & (square < (35 + half) ** 2)
            np.copyto(target, layer, where=ring)

    def _lay_motorway(
        self,
        layers: NDArray[np.uint16],
        number: int,
        line: int,
        t: NDArray[np.int32],
        t0: int,
        n4: NDArray[np.int32],
        inside: NDArray[np.bool_],
    ) -> None:
        low, high = t0 + int(t.min()), t0 + int(t.max())
        for stretch in range(low // STRETCH, high // STRETCH + 1):
            sheet = self._stretch(number, line, stretch)
            column = t + np.int32(t0 - stretch * STRETCH)
            here = inside & (column >= 0) & (column < STRETCH)
            index = ((n4 >> np.int32(2)) + np.int32(HALF)) * np.int32(STRETCH) + column
            np.copyto(layers, np.take(sheet.reshape(-1), index, mode="clip"), where=here)


class _Bent:
    """A window's warped coordinates in quarter pixels: x4[column] + x_shift[row], and so for y."""

    def __init__(
        self,
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        x_shift: NDArray[np.int64],
        y_shift: NDArray[np.int64],
    ) -> None:
        self.x4, self.y4 = 4 * x, 4 * y
        self.x_shift, self.y_shift = x_shift, y_shift

    def bounds(self) -> tuple[float, float, float, float]:
        """Least and greatest x, least and greatest y, pixels."""
        return (
            float(self.x4[0] + self.x_shift.min()) / 4,
            float(self.x4[-1] + self.x_shift.max()) / 4,
            float(self.y4[0] + self.y_shift.min()) / 4,
            float(self.y4[-1] + self.y_shift.max()) / 4,
        )


def _two_nearest(
    sites: list[tuple[int, int]], bent: _Bent
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
    """Nearest and second nearest site of each pixel, and the gap of their squares times 4."""
    shape = len(bent.y4), len(bent.x4)
    first, second = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    best = next_best = np.zeros(shape, np.int32)
    zero = 0
    for number, (sx, sy) in enumerate(sites):
        # 4 * |site - place|**2 without 4 * |place|**2, which is the same for all sites.
        columns = 4 * (sx * sx + sy * sy) - 2 * (sx * bent.x4 + sy * bent.y_shift)
        rows = -2 * (sx * bent.x_shift + sy * bent.y4)
        if number == 0:
            zero = int(columns[0] + rows[0])
        square = (columns - zero).astype(np.int32)[None, :] + rows.astype(np.int32)[:, None] \
            if abs(rows).max() < 1 << 30 else ((columns[None, :] + rows[:, None]) - zero).astype(np.int32)  # fmt: skip
        if number == 0:
            best, next_best = square, np.full(shape, np.iinfo(np.int32).max, np.int32)
            continue
        nearer = square < best
        closer = square < next_best
        second = np.where(nearer, first, np.where(closer, np.uint8(number), second))
        next_best = np.where(nearer, best, np.minimum(next_best, square))
        np.copyto(best, square, where=nearer)
        np.copyto(first, np.uint8(number), where=nearer)
    return first, second, next_best - best


def _plane(
    columns: NDArray[np.int64], rows: NDArray[np.int64], shift: int, origin: int
) -> NDArray[np.int32]:
    """((columns + rows) >> shift) - origin, (rows, columns) int32."""
    base = origin << shift
    half = int(rows[0])
    left = (columns + half - base).astype(np.int32)
    plane = left[None, :] + (rows - half).astype(np.int32)[:, None]
    plane >>= np.int32(shift)
    return plane


def _across(
    family: Family, line: int, x: NDArray[np.int64], y: NDArray[np.int64]
) -> tuple[NDArray[np.int32], int, NDArray[np.int32]] | None:
    """For each pixel: place along the line (less the returned origin), and quarter pixels beside it."""
    c, s = family.along
    t0 = int(min(c * x[0], c * x[-1]) + min(s * y[0], s * y[-1])) // UNIT
    t = _plane(c * x, s * y, 14, t0)
    at = t0 + np.arange(int(t.max()) + 2)
    offset = family.offset(line, at)
    slope = np.diff(offset)
    middle = np.rint(4 * offset[:-1]).astype(np.int64)
    n0 = int(middle[0])
    n4 = _plane(-s * x, c * y, 12, n0)
    lower, upper = int(middle.min()) - n0, int(middle.max()) - n0
    reach = 4 * (int(family.width[1]) + 60)
    if int(n4.max()) < lower - reach or int(n4.min()) > upper + reach:
        return None
    scale = np.rint(256.0 / np.sqrt(1.0 + slope * slope)).astype(np.int32)
    n4 -= (middle - n0).astype(np.int32)[t]
    n4 *= scale[t]
    n4 >>= np.int32(8)
    return t, t0, n4


def _avenue_profile() -> NDArray[np.uint16]:
    away = np.arange(4 * _BORDER)
    tone = np.full(len(away), tones.ASPHALT + 2)
    tone[away < 3] = tones.MARKING - 30
    tone[away >= 34] = tones.CONCRETE + 1
    ground = np.where(away < 40, tones.ROAD, tones.OUTLINE)
    return np.asarray(tone + 256 * ground, np.uint16)


def _texture(
    padded: NDArray[Any], x0: int, y0: int, width: int, height: int, *, rim: int
) -> NDArray[Any]:
    """A periodic texture's part for a piece, with a rim of rim / 2 pixels around it."""
    x, y = x0 % PERIOD, y0 % PERIOD
    return padded[y : y + height + rim, x : x + width + rim]


def _sensor_noise(seed: int) -> NDArray[np.uint64]:
    """Noise of the sensor, 0 to 7 levels in 256ths, in three lanes; (PERIOD, PERIOD) uint64."""
    total = np.zeros((PERIOD, PERIOD))
    for part in range(3):
        total += tones.periodic_noise(key_of(seed, 78, part), PERIOD, 1)
    lane = np.rint(256.0 * 7.0 / 3.0 * total).astype(np.uint64)
    return np.asarray(lane | lane << np.uint64(16) | lane << np.uint64(32))


def _water_texture(seed: int) -> NDArray[np.uint16]:
    slow = tones.periodic_noise(key_of(seed, 79), PERIOD, 256)
    fast = tones.periodic_noise(key_of(seed, 80), PERIOD, 8)
    level = np.clip(np.rint(0.5 + 6.0 * slow + 1.4 * fast), 0, tones.DEEP_LEVELS - 1)
    return (tones.DEEP + level + 256 * tones.WATER).astype(np.uint16)


def _woods_texture(seed: int) -> NDArray[np.uint16]:
    """Lawn with many trees, periodic: what grows on the banks."""
    size = PERIOD
    canvas = Canvas(size, size, (1.0, 0.0))
    canvas.tone[:] = tones.GRASS + 2
    canvas.ground[:] = tones.PARK
    dice = Dice(seed, 9)
    count = size * size // 90
    places = np.stack([dice.wholes(count, 0, size), dice.wholes(count, 0, size)], axis=1)
    canvas.trees(places, dice.wholes(count, 2, 6), dice)
    return canvas.packed()


def _pieces(start: int, length: int) -> list[tuple[int, int]]:
    """Parts of [start, start + length) that no multiple of PIECE divides."""
    borders = list(range(start - start % PIECE + PIECE, start + length, PIECE))
    return list(zip([start, *borders], [*borders, start + length], strict=True))


def _corners(x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[int, int, int, int]:
    return int(x[0]), int(y[0]), int(x[-1]), int(y[-1])


def _span(wanted: Any) -> slice:
    found = np.flatnonzero(wanted)
    return slice(int(found[0]), int(found[-1]) + 1)


@functools.lru_cache(maxsize=2)
def painter(seed: int, height: int, width: int) -> Painter:
    """The painter of one city, kept with its sheets for the next window.

    Raises:
        OptionError: a size below 1 pixel.
    """
    if height < 1 or width < 1:
        raise OptionError(
            f"size: {width}x{height} found, at least 1x1 is needed; choose a larger one"
        )
    return Painter(seed, height, width)


def paint(
    seed: int, size: tuple[int, int], row: int, col: int, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Imagery and true map of a window of the city, both (height, width, 3) uint8.

    Args:
        seed: which city.
        size: its (height, width), pixels.
        row: the window's first row.
        col: the window's first column.
        height: rows of the window.
        width: columns of the window.
    """
    return painter(seed, *size).paint(row, col, height, width)
