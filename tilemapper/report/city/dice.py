"""Chance for the synthetic city: hashed numbers that are the same on every machine for ever.

NumPy may change its random streams between versions, and sine and cosine differ in their last bit
between C libraries. So everything random comes from splitmix64, and everything smooth from
splines: only additions, multiplications and divisions, which IEEE 754 fixes to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_POOL = 256
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def hashed(key: int, values: NDArray[Any]) -> NDArray[np.float64]:
    """One number in [0, 1) for each integer of ``values`` (any shape, negative ones too)."""
    mixed = values.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def key_of(*parts: int) -> int:
    """A 64-bit key that stands for these integers in this order."""
    key = 0
    for part in parts:
        key = _mix((key + _GOLDEN + (part & _MASK)) & _MASK)
    return key


class Dice:
    """A stream of random numbers that depends on nothing but the integers it is made from."""

    def __init__(self, *parts: int) -> None:
        self._key = key_of(*parts)
        self._drawn = 0
        self._pool = np.empty(0)
        self._at = 0

    def numbers(self, count: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """``count`` numbers in [low, high), (count,) float64."""
        end = self._at + count
        if end > len(self._pool):
            # Drawn a few thousand at a time: a single draw costs as much as hundreds.
            more = max(_POOL, count)
            fresh = hashed(self._key, np.arange(self._drawn, self._drawn + more))
            self._pool = np.concatenate([self._pool[self._at :], fresh])
            self._drawn, self._at, end = self._drawn + more, 0, count
        unit = self._pool[self._at : end]
        self._at = end
        return low + (high - low) * unit

    def wholes(self, count: int, low: int, high: int) -> NDArray[np.int64]:
        """``count`` integers in [low, high), (count,) int64."""
        return low + (self.numbers(count) * (high - low)).astype(np.int64)

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """One number in [low, high)."""
        return float(self.numbers(1, low, high)[0])

    def whole(self, low: int, high: int) -> int:
        """One integer in [low, high)."""
        return low + int(self.number() * (high - low))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.number() < probability


def spline_noise(key: int, at: NDArray[Any], wavelength: float) -> NDArray[np.float64]:
    """Smooth noise in [-1, 1] along a line, shape of ``at`` (pixels): a cubic B-spline."""
    scaled = np.asarray(at, np.float64) / wavelength
    cell = np.floor(scaled)
    t = scaled - cell
    knot = cell.astype(np.int64)
    u = 1.0 - t
    total = hashed(key, knot - 1) * (u * u * u)
    total = total + hashed(key, knot) * (3.0 * t * t * t - 6.0 * t * t + 4.0)
    total = total + hashed(key, knot + 1) * (3.0 * u * u * u - 6.0 * u * u + 4.0)
    total = total + hashed(key, knot + 2) * (t * t * t)
    return total / 3.0 - 1.0


def direction(turn: float) -> tuple[float, float]:
    """A unit vector (along x, along y); ``turn`` in [-1, 1] runs from -90 to 90 degrees."""
    # The rational circle: no sine, whose last bit depends on the machine.
    square = turn * turn
    return (1.0 - square) / (1.0 + square), 2.0 * turn / (1.0 + square)
