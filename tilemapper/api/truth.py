"""A rendered map measured against a true one, in windows that both cover."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from tilemapper.errors import RasterError
from tilemapper.raster.opening import GDAL_ERRORS
from tilemapper.raster.spec import SourceSpec
from tilemapper.report.alignment import Laid, Rendered
from tilemapper.report.comparison import TruthFigures
from tilemapper.training.legend import MAPS_LEGEND, Legend
from tilemapper.training.metrics import MapMetrics, measure_maps

SIDES = (256, 128, 64, 32)
MOST_WINDOWS = 120
MOST_TRIED = 800
ROUNDING = 0.01  # of a pixel, by which grids that are the same may seem to differ
POINTS = 17  # along a side of a footprint


def truth_figures(
    rendered: Rendered, truth: Laid, *, legend: Legend = MAPS_LEGEND, seed: int = 0
) -> TruthFigures:
    """The figures of `training.metrics` over sample windows that lie in both maps whole.

    Windows of 256 px, the size of published figures, of less where no such window is covered; at
    most 120, chosen by ``seed``. ``legend`` names the classes of both maps' colours.

    Raises:
        RasterError: the truth covers no window of the map, or cannot be read.
    """
    for side in SIDES:
        parts = [
            measure_maps(painted[None], true[None], legend=legend)
            for painted, true in _windows(rendered, truth, side, seed)
        ]
        if parts:
            return TruthFigures(truth.path, MapMetrics.join(parts).mean(), len(parts), side)
    raise RasterError(
        f"{truth.path}: covers no {SIDES[-1]} px of {rendered.spec.path}, at least that is needed "
        "to measure; give a true map of the same ground"
    )


def _windows(
    rendered: Rendered, truth: Laid, side: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pairs of windows, (side, side, 3) uint8, valid everywhere in both."""
    top, left, bottom, right = _footprint(rendered, truth)
    places = [
        (row, col)
        for row in range(top, bottom - side + 1, side)
        for col in range(left, right - side + 1, side)
    ]
    random.Random(seed).shuffle(places)
    wanted = MOST_WINDOWS
    for at in range(0, min(len(places), MOST_TRIED), MOST_WINDOWS):
        some = places[at : min(at + MOST_WINDOWS, MOST_TRIED)]
        # Sorted again: files that are compressed from top to bottom are then decoded once.
        pairs = {place: _pair(rendered, truth, place, side) for place in sorted(some)}
        # Taken as they were shuffled: the first of the sorted ones are the north of the map alone.
        found = [pair for place in some if (pair := pairs.pop(place)) is not None][:wanted]
        yield from found
        wanted -= len(found)
        if not wanted:
            return


def _pair(
    rendered: Rendered, truth: Laid, place: tuple[int, int], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The windows at a place; None if one of them is not valid everywhere."""
    window = {"row": place[0], "col": place[1], "height": side, "width": side}
    true, valid = truth.view.read(**window)
    if not valid.all():
        return None
    painted, valid = rendered.view.read(**window)
    if not valid.all():
        return None
    return np.ascontiguousarray(painted), np.ascontiguousarray(true)


def _footprint(rendered: Rendered, truth: Laid) -> tuple[int, int, int, int]:
    """Rows and columns of the map that the truth may cover: top, left, bottom, right.

    A small truth would hardly be met by windows that are chosen from all of a large map.
    """
    grid, spec = rendered.spec, truth.laid.spec
    whole = 0, 0, grid.height, grid.width
    if not all(one.crs_wkt and not Affine(*one.transform).is_identity for one in (grid, spec)):
        return whole  # laid over each other pixel by pixel
    assert spec.crs_wkt and grid.crs_wkt
    try:
        rim = transform_points(CRS.from_wkt(spec.crs_wkt), CRS.from_wkt(grid.crs_wkt), *_rim(spec))
    except GDAL_ERRORS:
        return whole
    x, y = (np.asarray(values) for values in rim)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return whole
    inverse = ~Affine(*grid.transform)
    cols = inverse.a * x + inverse.b * y + inverse.c
    rows = inverse.d * x + inverse.e * y + inverse.f
    return (
        max(0, math.ceil(rows.min() - ROUNDING)),
        max(0, math.ceil(cols.min() - ROUNDING)),
        min(grid.height, math.floor(rows.max() + ROUNDING)),
        min(grid.width, math.floor(cols.max() + ROUNDING)),
    )


def _rim(spec: SourceSpec) -> tuple[list[float], list[float]]:
    """A raster's outline in its own CRS, x and y of points along its sides, which may be bent."""
    along = np.linspace(0, 1, POINTS)
    ends = np.repeat((0.0, 1.0), POINTS)
    cols = np.concatenate([np.tile(along, 2), ends]) * spec.width
    rows = np.concatenate([ends, np.tile(along, 2)]) * spec.height
    a, b, c, d, e, f = spec.transform[:6]
    return (a * cols + b * rows + c).tolist(), (d * cols + e * rows + f).tolist()
