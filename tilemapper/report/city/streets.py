"""Lays the districts into a window, and the avenues along their borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.report.city import tones
from tilemapper.report.city.canvas import Sheet
from tilemapper.report.city.frame import Frame, extent, plane
from tilemapper.report.city.plan import PITCH, Plan

Cell = tuple[int, int]
AVENUE = 11  # half width of the widest avenue, pixels


@dataclass
class Avenues:
    """Where avenues run, and between which two districts: indices into ``cells`` squared."""

    where: NDArray[np.bool_]
    pair: NDArray[np.intp]
    cells: list[Cell]

    def flying_over(self, plan: Plan, family: int) -> NDArray[np.bool_]:
        """Where they cross that family of motorways on a bridge."""
        cells = self.cells
        table = [[a != b and plan.flies_over(a, b, family) for b in cells] for a in cells]
        return np.asarray(self.where & np.array(table).reshape(-1)[self.pair])


def lay_districts(
    plan: Plan, frame: Frame, sheet_of: Callable[[int, int], Sheet]
) -> tuple[NDArray[np.uint16], Avenues | None]:
    """Districts and avenues, (height, width) uint16 layers; ``sheet_of`` paints a district."""
    cells = _cells_near(plan, frame)
    first, second, gap = _two_nearest([plan.site(*cell) for cell in cells], frame)
    layers = np.zeros(first.shape, np.uint16)
    for number, cell in enumerate(cells):
        mine = first == number
        if mine.any():
            part = extent(mine)
            _lay_sheet(layers[part], mine[part], frame, part, sheet_of(*cell))
    if len(cells) == 1:
        return layers, None
    return layers, _lay_avenues(layers, plan, cells, first, second, gap)


def _cells_near(plan: Plan, frame: Frame) -> list[Cell]:
    """Districts that own a pixel of the window, or come within an avenue of it; sorted."""
    left, right, top, bottom = frame.bounds()
    reach = 1.6 * PITCH
    found = []
    for j in range(int((top - reach) // PITCH), int((bottom + reach) // PITCH) + 2):
        for i in range(int((left - reach) // PITCH) - 1, int((right + reach) // PITCH) + 2):
            x, y = plan.site(i, j)
            near = np.hypot(max(left - x, 0, x - right), max(top - y, 0, y - bottom))
            far = np.hypot(max(x - left, right - x), max(y - top, bottom - y))
            found.append((float(near), float(far), (i, j)))
    nearest = min(far for _, far, _ in found)
    return sorted(cell for near, _, cell in found if near <= nearest + 3 * AVENUE)


def _two_nearest(
    sites: list[tuple[int, int]], frame: Frame
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]:
    """Nearest and second nearest site of each pixel, and the gap of their squares times 4."""
    shape = frame.height, frame.width
    first, second = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    best = np.full(shape, np.iinfo(np.int32).max, np.int32)
    next_best = best
    for number, (site_x, site_y) in enumerate(sites):
        # 4 * |site - place|**2 without 4 * |place|**2, which is the same for all sites; counted
        # from the window's corner, so that the numbers stay small.
        x, y = site_x - frame.x0, site_y - frame.y0
        columns = 4 * (x * x + y * y) - 2 * (x * (frame.x4 - frame.x4[0]) + y * frame.y_shift)
        rows = -2 * (x * frame.x_shift + y * (frame.y4 - frame.y4[0]))
        square = columns.astype(np.int32)[None, :] + rows.astype(np.int32)[:, None]
        nearer, closer = square < best, square < next_best
        second = np.where(nearer, first, np.where(closer, np.uint8(number), second))
        next_best = np.where(nearer, best, np.minimum(next_best, square))
        np.copyto(best, square, where=nearer)
        np.copyto(first, np.uint8(number), where=nearer)
    return first, second, next_best - best


def _lay_sheet(
    layers: NDArray[np.uint16],
    mine: NDArray[np.bool_],
    frame: Frame,
    part: tuple[slice, slice],
    sheet: Sheet,
) -> None:
    rows, columns = part
    c, s = sheet.along
    u = plane(
        c * frame.x4[columns] + s * frame.y_shift[columns],
        c * frame.x_shift[rows] + s * frame.y4[rows],
        16,
        sheet.u0,
    )
    v = plane(
        c * frame.y_shift[columns] - s * frame.x4[columns],
        c * frame.y4[rows] - s * frame.x_shift[rows],
        16,
        sheet.v0,
    )
    v *= sheet.packed.shape[1]
    v += u
    np.copyto(layers, np.take(sheet.packed.reshape(-1), v, mode="clip"), where=mine)


def _lay_avenues(
    layers: NDArray[np.uint16],
    plan: Plan,
    cells: list[Cell],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    gap: NDArray[np.int32],
) -> Avenues | None:
    count = len(cells)
    sites = np.array([plan.site(*cell) for cell in cells], np.float64)
    away_x, away_y = (sites[:, None] - sites[None]).transpose(2, 0, 1)
    apart = np.sqrt(away_x * away_x + away_y * away_y) + np.eye(count)
    if int(gap.min()) > 8 * AVENUE * (float(apart.max()) + 1.0):
        return None
    widths = [[plan.avenue(a, b) if a != b else 0 for b in cells] for a in cells]
    narrow = (4 * (AVENUE - np.array(widths))).astype(np.int32).reshape(-1)
    pair = first.astype(np.intp) * count + second
    scale = (1.0 / (2.0 * apart)).astype(np.float32).reshape(-1)
    away = (gap * scale[pair]).astype(np.int32) + narrow[pair]  # quarter pixels from the middle
    where = away < 4 * AVENUE
    np.copyto(layers, np.take(_profile(), away, mode="clip"), where=where)
    return Avenues(where, pair, cells)


def _profile() -> NDArray[np.uint16]:
    """Layers of an avenue at each quarter pixel from its middle; all end alike at the edge."""
    away = np.arange(4 * AVENUE)
    tone = np.full(len(away), tones.ASPHALT + 2)
    tone[away < 3] = tones.ASPHALT + 5
    tone[away >= 4 * AVENUE - 10] = tones.CONCRETE + 1
    ground = np.where(away < 4 * AVENUE - 4, tones.ROAD, tones.OUTLINE)
    return np.asarray(tone + 256 * ground, np.uint16)
