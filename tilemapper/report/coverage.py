"""A map of footprints as inline SVG: where an archive's scenes lie, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape

from tilemapper.raster.dateline import unbroken

# Beyond this the map is a smear, and the file grows without telling more.
MAX_SHAPES = 20_000
_WIDTH_PX, _HEIGHT_PX = 720, 480
_SMALL_PX = 4
_KM_A_DEGREE = 111.32


@dataclass(frozen=True)
class Footprint:
    """A scene on the ground: its name, state, and closed ring of (longitude, latitude)."""

    name: str
    state: str
    ring: list[tuple[float, float]]


@dataclass(frozen=True)
class _Frame:
    """From degrees to the picture's pixels, north up."""

    west: float
    north: float
    shrink: float  # one degree of longitude is shorter than one of latitude, off the equator
    scale: float

    def point(self, place: tuple[float, float]) -> tuple[float, float]:
        lon, lat = place
        return (lon - self.west) * self.shrink * self.scale, (self.north - lat) * self.scale


def coverage_svg(footprints: list[Footprint], colours: Mapping[str, str]) -> str:
    """The map, with the scene's name where the pointer rests; empty if there are no footprints.

    colours: of each state. What is drawn last lies on top: the order of the footprints.
    """
    if not footprints:
        return ""
    shown = _in_one_piece(footprints[:MAX_SHAPES])
    xs = [x for footprint in shown for x, _ in footprint.ring]
    ys = [y for footprint in shown for _, y in footprint.ring]
    shrink = max(0.05, math.cos(math.radians((min(ys) + max(ys)) / 2)))
    span_x, span_y = (max(xs) - min(xs)) * shrink, max(ys) - min(ys)
    scale = min(_WIDTH_PX / max(span_x, 1e-9), _HEIGHT_PX / max(span_y, 1e-9))
    frame = _Frame(min(xs), max(ys), shrink, scale)
    shapes = "".join(_shape(footprint, frame, colours[footprint.state]) for footprint in shown)
    width, height = max(4.0, span_x * scale), max(4.0, span_y * scale)
    left = f" Of {len(footprints)}, the first {MAX_SHAPES} are drawn." * (
        len(footprints) > MAX_SHAPES
    )
    return (
        f'<svg viewBox="-8 -8 {width + 16:.0f} {height + 16:.0f}" role="img" '
        f'style="max-height:{_HEIGHT_PX}px" aria-label="coverage" fill-opacity=".45" '
        f'stroke="currentColor" stroke-opacity=".6" stroke-width=".7">{shapes}</svg>'
        f'<p class="note">North is up; {_km(span_x)} from west to east, {_km(span_y)} from south '
        f"to north; {min(xs):.4f}, {min(ys):.4f} to {max(xs):.4f}, {max(ys):.4f} degrees.{left}</p>"
    )


def _in_one_piece(footprints: list[Footprint]) -> list[Footprint]:
    """Rings across the date line go on beyond it, and all are counted so that they lie closest."""
    rings = [unbroken(footprint.ring) for footprint in footprints]

    def onwards(ring: list[tuple[float, float]]) -> list[tuple[float, float]]:
        turn = 360 if max(lon for lon, _ in ring) < 0 else 0
        return [(lon + turn, lat) for lon, lat in ring]

    def width(rings: list[list[tuple[float, float]]]) -> float:
        lons = [lon for ring in rings for lon, _ in ring]
        return max(lons) - min(lons)

    closest = min(rings, [onwards(ring) for ring in rings], key=width)
    return [replace(old, ring=ring) for old, ring in zip(footprints, closest, strict=True)]


def _km(degrees: float) -> str:
    km = degrees * _KM_A_DEGREE
    return f"{km:,.0f} km" if km >= 100 else f"{km:.3g} km"


def _shape(footprint: Footprint, frame: _Frame, colour: str) -> str:
    corners = [frame.point(place) for place in footprint.ring]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    title = f"<title>{escape(footprint.name)}: {escape(footprint.state)}</title>"
    wide = max(x for x, _ in corners) - min(x for x, _ in corners)
    x, y = corners[0]
    mark = (  # a scene of some km on a map of the world
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{title}</circle>'
        if wide < _SMALL_PX
        else ""
    )
    return f'<polygon points="{points}" fill="{colour}">{title}</polygon>{mark}'
