"""Closer looks: small windows at full size, where seams are worst and in the middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilemapper.raster.webp import Picture, encode_picture
from tilemapper.report.alignment import Laid, Rendered
from tilemapper.report.seams import SeamJump

SIDE = 320
HOTTEST = 3


@dataclass(frozen=True)
class Look:
    """A window at full size, around (row, col); ``heat`` as in `SeamJump`, None in the middle."""

    row: int
    col: int
    heat: float | None
    source: Picture
    map: Picture


def take_looks(laid: Laid, rendered: Rendered, seams: SeamJump) -> list[Look]:
    """The hottest cells that lie apart, and the raster's middle.

    Raises:
        RasterError: a window cannot be read.
    """
    height, width = rendered.spec.height, rendered.spec.width
    places: list[tuple[int, int, float | None]] = []
    heat = np.where(np.isfinite(seams.heat), seams.heat, -np.inf)
    for index in np.argsort(-heat, axis=None, kind="stable"):
        i, j = divmod(int(index), heat.shape[1])
        row, col = (int((n + 0.5) * seams.cell + seams.origin) for n in (i, j))
        if len(places) == HOTTEST or not np.isfinite(heat[i, j]):
            break
        if row < height and col < width and not _near(places, row, col):
            places.append((row, col, float(heat[i, j])))
    places.append((height // 2, width // 2, None))
    return [_look(laid, rendered, *place) for place in places]


def _near(places: list[tuple[int, int, float | None]], row: int, col: int) -> bool:
    return any(max(abs(row - r), abs(col - c)) < SIDE for r, c, _ in places)


def _look(laid: Laid, rendered: Rendered, row: int, col: int, heat: float | None) -> Look:
    height, width = min(SIDE, rendered.spec.height), min(SIDE, rendered.spec.width)
    top = min(max(0, row - height // 2), rendered.spec.height - height)
    left = min(max(0, col - width // 2), rendered.spec.width - width)
    window = {"row": top, "col": left, "height": height, "width": width}
    source, source_valid = laid.view.read(**window)
    painted, valid = rendered.view.read(**window)
    return Look(
        row,
        col,
        heat,
        encode_picture(np.ascontiguousarray(source), source_valid, quality=80),
        encode_picture(np.ascontiguousarray(painted), valid),
    )
