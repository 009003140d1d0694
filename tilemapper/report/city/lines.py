"""Families of winding lines: what the rivers and the motorways of the synthetic city follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city.dice import hashed, key_of, spline_noise

UNIT = 1 << 14  # fixed point of direction vectors


@dataclass(frozen=True)
class Family:
    """Winding lines, roughly parallel: line k runs near n = origin + k * spacing."""

    key: int
    along: tuple[int, int]  # unit vector times UNIT
    origin: float
    spacing: float
    sway: float  # half the meander's width, pixels
    wavelength: float
    width: tuple[float, float]  # least and greatest half width

    def position(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Coordinates along (t) and across (n) the family, pixels, float64."""
        c, s = self.along
        return (c * x + s * y) / UNIT, (c * y - s * x) / UNIT

    def offset(self, line: int, t: NDArray[Any]) -> NDArray[np.float64]:
        """Where line ``line`` runs at t, in n."""
        jitter = 0.0 if line == 0 else 0.4 * (float(hashed(self.key, np.array([line]))[0]) - 0.5)
        sway = spline_noise(key_of(self.key, line, 1), t, self.wavelength)
        return self.origin + (line + jitter) * self.spacing + self.sway * sway

    def half_width(self, line: int, t: NDArray[Any]) -> NDArray[np.float64]:
        """Half the line's width at t, pixels."""
        low, high = self.width
        if low == high:
            return np.full(np.shape(t), low)
        noise = 0.5 + 0.5 * spline_noise(key_of(self.key, line, 2), t, 1500.0)
        return low + (high - low) * np.clip(noise * 1.6 - 0.3, 0.0, 1.0)

    def lines_near(self, x0: int, y0: int, x1: int, y1: int, reach: float) -> list[int]:
        """Lines whose middle may come within ``reach`` of the window's pixels."""
        x, y = np.array([x0, x1, x0, x1]), np.array([y0, y0, y1, y1])
        _, n = self.position(x, y)
        slack = reach + self.sway + 0.2 * self.spacing
        first = int(np.ceil((n.min() - slack - self.origin) / self.spacing))
        last = int(np.floor((n.max() + slack - self.origin) / self.spacing))
        return list(range(first, last + 1))

    def place(self, line: int, t: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The points x, y on the middle of a line, pixels."""
        c, s = self.along[0] / UNIT, self.along[1] / UNIT
        n = self.offset(line, t)
        return c * t - s * n, s * t + c * n

    def distance(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """Distance of points from the nearest bank, negative between the banks; approximate."""
        t, n = self.position(x, y)
        best = np.full(np.shape(t), 1e9)
        corners = int(x.min()), int(y.min()), int(x.max()), int(y.max())
        for line in self.lines_near(*corners, reach=self.width[1] + 300.0):
            away = np.abs(n - self.offset(line, t)) - self.half_width(line, t)
            best = np.minimum(best, away)
        return best
