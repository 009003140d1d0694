"""Curves over steps as inline SVG: no script, no picture, readable in light, dark and print."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, LEAST_HEIGHT = 720, 260
LINE = 13  # from name to name
LEFT, RIGHT, TOP, BOTTOM = 56, 200, 12, 30
# Okabe and Ito's colours, told apart by most; the dashes tell them apart without any.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a7d0a", "#56b4e9", "#7f7f7f")
DASHES = ("", "7 3", "2 3", "9 3 2 3")


def curves_svg(curves: Mapping[str, Points], *, title: str, top: float | None = None) -> str:
    """Lines over steps with their names at their ends; empty if there is no point.

    Args:
        curves: name -> (step, value) pairs, ascending; values that are not finite are left out.
        title: for those who cannot see it.
        top: the highest value of the axis, if it is fixed; else the highest point.
    """
    kept = {
        name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in curves.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    steps = [x for points in kept.values() for x, _ in points]
    values = [y for points in kept.values() for _, y in points]
    height = max(LEAST_HEIGHT, LINE * len(kept) + TOP)  # for all the names, one below the other
    low, high = min(0.0, *values), top or max(values) or 1.0
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        share = min(1.0, (y - low) / ((high - low) or 1.0))
        return across, height - BOTTOM - share * (height - TOP - BOTTOM)

    parts = [_axes(low, high, first, last, height)]
    ends = _apart([place(*points[-1])[1] for points in kept.values()], height)
    for index, (name, points) in enumerate(kept.items()):
        colour = COLOURS[index % len(COLOURS)]
        dash = DASHES[index // len(COLOURS) % len(DASHES)]
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"><title>{escape(name)}: '
            f"{value:.4g} at step {step:g}</title></circle>"
            for step, value in points
            for x, y in [place(step, value)]
        )
        parts.append(
            f'<polyline fill="none" stroke-width="1.8" {style} points="{places}"/>'
            + (dots if len(points) <= 120 else "")
            + f'<line stroke-width="3" {style} x1="{WIDTH - RIGHT + 6}" x2="{WIDTH - RIGHT + 26}" '
            f'y1="{ends[index]:.1f}" y2="{ends[index]:.1f}"/>'
            f'<text x="{WIDTH - RIGHT + 32}" y="{ends[index] + 4:.1f}" class="name">'
            f"{escape(name)} {points[-1][1]:.3g}</text>"
        )
    return (
        f'<svg class="curves" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _axes(low: float, high: float, first: float, last: float, height: int) -> str:
    """Lines at five heights with their values, and the first and last step."""
    parts = []
    for tick in range(5):
        value = low + (high - low) * tick / 4
        y = height - BOTTOM - tick / 4 * (height - TOP - BOTTOM)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    y = height - 10
    parts.append(f'<text x="{LEFT}" y="{y}">step {first:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{y}" text-anchor="end">{last:g}</text>')
    return "".join(parts)


def _apart(heights: list[float], height: int) -> list[float]:
    """The heights of labels, moved so that none lies over another or outside; their order stays."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + LINE)
    # What would lie below the edge goes up, and takes along only what is in its way.
    lowest = height - 4.0
    for i in reversed(order):
        placed[i] = min(placed[i], lowest)
        lowest = placed[i] - LINE
    return placed
