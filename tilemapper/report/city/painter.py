"""Paints any window of the synthetic city: imagery and true map, the same whatever the window."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError
from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Sheet
from tilemapper.report.city.dice import Dice
from tilemapper.report.city.district import paint_district
from tilemapper.report.city.frame import Frame
from tilemapper.report.city.motorway import paint_stretch
from tilemapper.report.city.plan import Plan
from tilemapper.report.city.river import lay_rivers
from tilemapper.report.city.roads import lay_motorways
from tilemapper.report.city.streets import lay_districts
from tilemapper.report.city.textures import PIECE, Textures, part

_SHEETS, _STRETCHES = 32, 24  # kept for the next window: about 150 MiB at most
_FAR, _NEAR = np.uint64(3), np.uint64(10)  # the lens: 3, 10, 3 sixteenths along each axis

Value = TypeVar("Value")


class Painter:
    """The city of one seed and size. Threads may share it."""

    def __init__(self, seed: int, height: int, width: int) -> None:
        """``height``, ``width``: the city's size, pixels; it decides where the river is crossed."""
        dice = Dice(seed, 0)
        # In the part that every city has, be it small or large.
        anchor = (
            min(width, 2048) * dice.number(0.55, 0.68),
            min(height, 2048) * dice.number(0.27, 0.4),
        )
        self.plan = Plan(seed, anchor)
        self._textures = _textures(seed)
        self._colours = tones.colour_table()
        self._map = tones.map_table()
        self._sheets: _Kept[Sheet] = _Kept(_SHEETS)
        self._stretches: _Kept[NDArray[np.uint16]] = _Kept(_STRETCHES)

    def paint(
        self, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Imagery and true map of a window, both (height, width, 3) uint8."""
        satellite = np.empty((height, width, 3), np.uint8)
        truth = np.empty((height, width, 3), np.uint8)
        for top, bottom in _pieces(row, height):
            for left, right in _pieces(col, width):
                inside = slice(top - row, bottom - row), slice(left - col, right - col)
                self._piece(left, top, satellite[inside], truth[inside])
        return satellite, truth

    def _piece(
        self, x0: int, y0: int, satellite: NDArray[np.uint8], truth: NDArray[np.uint8]
    ) -> None:
        height, width = truth.shape[:2]
        # One more pixel on each side, for the lens.
        layers = self._layers(x0 - 1, y0 - 1, width + 2, height + 2)
        np.take(self._map, layers[1:-1, 1:-1] >> np.uint16(8), axis=0, out=truth, mode="clip")
        grain = part(self._textures.grain, x0 - 1, y0 - 1, width + 2, height + 2)
        index = ((layers & np.uint16(255)) << np.uint16(5)) | grain
        light = np.take(self._colours, index)  # uint64, three lanes of 16 bits
        light = _FAR * (light[:, :-2] + light[:, 2:]) + _NEAR * light[:, 1:-1]
        light = _FAR * (light[:-2] + light[2:]) + _NEAR * light[1:-1]  # 256 times the colour
        light += part(self._textures.noise, x0, y0, width, height)
        for band in range(3):
            lane = (light >> np.uint64(16 * band + 8)) & np.uint64(255)
            satellite[..., band] = lane

    def _layers(self, x0: int, y0: int, width: int, height: int) -> NDArray[np.uint16]:
        """Tone + 256 * map class of a window, (height, width) uint16."""
        frame = Frame(self.plan, x0, y0, width, height)
        layers, avenues = lay_districts(self.plan, frame, self._sheet)
        water = lay_rivers(layers, self.plan, frame, self._textures, avenues)
        lay_motorways(layers, self.plan, frame, self._textures, avenues, water, self._stretch)
        return layers

    def _sheet(self, i: int, j: int) -> Sheet:
        return self._sheets.get((i, j), lambda: paint_district(self.plan, self.plan.district(i, j)))

    def _stretch(self, number: int, line: int, stretch: int) -> NDArray[np.uint16]:
        return self._stretches.get(
            (number, line, stretch), lambda: paint_stretch(self.plan, number, line, stretch)
        )


class _Kept(Generic[Value]):
    """The values asked for last; threads that ask for the same one wait for one of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made now if it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            value = make()
            with self._lock:
                self._values[key] = value
                self._making.pop(key, None)
                while len(self._values) > self._limit:
                    self._values.popitem(last=False)
            return value


def _pieces(start: int, length: int) -> list[tuple[int, int]]:
    """Parts of [start, start + length) that no multiple of PIECE divides."""
    borders = list(range(start - start % PIECE + PIECE, start + length, PIECE))
    return list(zip([start, *borders], [*borders, start + length], strict=True))


@functools.lru_cache(maxsize=2)
def _textures(seed: int) -> Textures:
    return Textures(seed)


@functools.lru_cache(maxsize=4)
def _painter(seed: int, height: int, width: int) -> Painter:
    return Painter(seed, height, width)


def paint(
    seed: int, size: tuple[int, int], row: int, col: int, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Imagery and true map of a window of a city, both (height, width, 3) uint8.

    The city's streets, sheets and textures are kept for the next call.

    Args:
        seed: which city.
        size: its (height, width), pixels.
        row: the window's first row.
        col: the window's first column.
        height: rows of the window, at least 1.
        width: columns of the window, at least 1.

    Raises:
        OptionError: a size or window without pixels.
    """
    if min(*size, height, width) < 1:
        raise OptionError(
            f"city: size {size}, window {height} x {width} found, at least 1 x 1 is needed; "
            "choose larger ones"
        )
    return _painter(seed, *size).paint(row, col, height, width)
