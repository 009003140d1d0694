"""A rendered map measured against a true one, in windows that both cover."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import RasterError
from tilemapper.report.alignment import Laid, Rendered
from tilemapper.report.comparison import TruthFigures
from tilemapper.training.legend import MAPS_LEGEND, Legend
from tilemapper.training.metrics import MapMetrics, measure_maps

SIDES = (256, 128, 64, 32)
MOST_WINDOWS = 120
MOST_TRIED = 800


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
    height, width = rendered.spec.height, rendered.spec.width
    places = [(row, col) for row in range(height // side) for col in range(width // side)]
    random.Random(seed).shuffle(places)
    found = 0
    # Sorted again: files that are compressed from top to bottom are then decoded once.
    for row, col in sorted(places[:MOST_TRIED]):
        window = {"row": row * side, "col": col * side, "height": side, "width": side}
        true, true_valid = truth.view.read(**window)
        if not true_valid.all():
            continue
        painted, valid = rendered.view.read(**window)
        if valid.all():
            yield np.ascontiguousarray(painted), np.ascontiguousarray(true)
            found += 1
            if found == MOST_WINDOWS:
                return
