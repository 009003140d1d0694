"""Numbers of any type as bytes, by one pair of limits for the whole raster.

The pair is the 2nd and 98th percentile of the valid values of the three bands taken together. One
pair, not one for each band, keeps the ratios between the bands, which is where the colour of
calibrated imagery lies: three pairs would paint a forest grey. A sensor's cast is for ``--tone``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW_PERCENT = 2.0
HIGH_PERCENT = 98.0


def percentile_limits(values: NDArray[np.generic]) -> tuple[float, float]:
    """Limits for values of any shape and real type; all of them finite.

    A constant raster becomes mid-grey; so does an empty one.
    """
    if values.size == 0:
        return (0.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.percentile(values.astype(np.float64).ravel(), (LOW_PERCENT, HIGH_PERCENT))
    if not high > low:
        low, high = np.float64(values.min()), np.float64(values.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return (float(low), float(high))


def to_bytes(band: NDArray[np.generic], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """One band, (h, w) of any real type, as uint8: limits[0] and less is 0, limits[1] is 255.

    NaN becomes 0; validity is the mask's business.
    """
    if band.dtype.kind in "iu" and band.dtype.itemsize <= 2:
        return _by_table(band, limits)
    low, high = limits
    usual = 1e-30 < high - low < 1e30
    # 64-bit floats and integers beyond 24 bits would lose their low digits in float32.
    narrow = band.dtype.kind == "f" and band.dtype.itemsize <= 4 and usual
    out: NDArray[Any] = band.astype(np.float32 if narrow else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are cut below
        if not usual:  # near the ends of what floats can hold, where a product would overflow
            out /= 2
            low, high = low / 2, high / 2
        out -= out.dtype.type(low)
        if usual:
            out *= out.dtype.type(255.0 / (high - low))
        else:
            out /= high - low
            out *= 255
    np.nan_to_num(out, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(out, 0.0, 255.0, out=out)
    np.rint(out, out=out)
    return out.astype(np.uint8)


def _by_table(band: NDArray[np.generic], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """All values of an 8- or 16-bit type, scaled once, then looked up."""
    unsigned = np.dtype(f"u{band.dtype.itemsize}")
    every = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(band.dtype)
    table = to_bytes(every.astype(np.float64), limits)
    return np.take(table, np.ascontiguousarray(band).view(unsigned))
