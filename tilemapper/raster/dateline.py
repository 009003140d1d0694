"""Rings and boxes in degrees, also across the date line, as GeoJSON has them (RFC 7946).

A ring that crosses it goes on counting (180.1 after 179.9) until it is written: then it is cut in
two there (3.1.9). A box that crosses it has its west beyond its east (5.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

Ring = list[tuple[float, float]]
Box = tuple[float, float, float, float]  # west, south, east, north
_TURN = 360.0
_HALF = 180.0


def unbroken(ring: Ring) -> Ring:
    """The ring with each longitude counted as its neighbour's is: 180.1 after 179.9."""
    found = ring[:1]
    for lon, lat in ring[1:]:
        found.append((lon - _TURN * round((lon - found[-1][0]) / _TURN), lat))
    return found


def on_the_ground(ring: Ring) -> Ring:
    """A closed ring as `unbroken` has it, its west from -180 on, counterclockwise.

    One around a pole ends where it begins no more: it becomes all that lies nearer to the pole
    than its farthest point, which is more than the raster, but a ring that others can read. One
    that goes on beyond the Earth's turn holds some ground twice: it becomes all around it, once.
    """
    ring = unbroken(ring)
    lons, lats = zip(*ring, strict=True)
    if abs(ring[-1][0] - ring[0][0]) > _HALF:
        low, high = sorted((min(lats, key=abs), 90.0 if sum(lats) > 0 else -90.0))
        return _band(low, high)
    if max(lons) - min(lons) > _TURN:
        return _band(min(lats), max(lats))
    turns = _turns(min(lons))
    ring = [(lon - turns, lat) for lon, lat in ring] if turns else ring
    doubled = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))
    return ring if doubled > 0 else ring[::-1]


def _band(low: float, high: float) -> Ring:
    """All around the Earth, between two latitudes."""
    # With places between, for half a turn on may as well be half a turn back.
    around = [-_HALF, -90.0, 0.0, 90.0, _HALF]
    below, above = [(lon, low) for lon in around], [(lon, high) for lon in around[::-1]]
    return [*below, *above, below[0]]


def geometry(ring: Ring) -> dict[str, Any]:
    """A closed ring as GeoJSON: a polygon, or two on both sides of the date line."""
    ring = on_the_ground(ring)
    if max(lon for lon, _ in ring) <= _HALF:
        return {"type": "Polygon", "coordinates": [ring]}
    before = _cut(ring, before=True)
    beyond = [(lon - _TURN, lat) for lon, lat in _cut(ring, before=False)]
    return {"type": "MultiPolygon", "coordinates": [[before], [beyond]]}


def box_of(ring: Ring) -> Box:
    """The box around a closed ring."""
    lons, lats = zip(*on_the_ground(ring), strict=True)
    return _written(min(lons), min(lats), max(lons), max(lats))


def touches(box: Box, other: Box) -> bool:
    """Whether two boxes share ground, however their longitudes are counted."""
    (west, east), (left, right) = _span(box), _span(other)
    shares = any(west + turn < right and left < east + turn for turn in (-_TURN, 0.0, _TURN))
    return shares and box[1] < other[3] and other[1] < box[3]


def enclosing(boxes: Iterable[Box]) -> Box:
    """A box around all; around the Earth if there are none, or they lie all around it."""
    boxes = list(boxes)
    if not boxes:
        return -_HALF, -90.0, _HALF, 90.0
    spans = [_span(box) for box in boxes]
    # Counted from -180 on or from 0 on: about the date line the second is the narrower way.
    onwards = [(w + _TURN, e + _TURN) if w < 0 else (w, e) for w, e in spans]
    west, east = min((_around(spans), _around(onwards)), key=lambda span: span[1] - span[0])
    return _written(west, min(b[1] for b in boxes), east, max(b[3] for b in boxes))


def _around(spans: list[tuple[float, float]]) -> tuple[float, float]:
    return min(west for west, _ in spans), max(east for _, east in spans)


def _span(box: Box) -> tuple[float, float]:
    """West and east, counted on across the date line."""
    return box[0], box[2] if box[0] <= box[2] else box[2] + _TURN


def _written(west: float, south: float, east: float, north: float) -> Box:
    if east - west >= _TURN:
        return -_HALF, south, _HALF, north
    turns = _turns(west)
    west, east = west - turns, east - turns
    return west, south, east if east <= _HALF else east - _TURN, north


def _turns(west: float) -> float:
    """What to take off so that the west lies from -180 to below 180."""
    return _TURN * ((west + _HALF) // _TURN)


def _cut(ring: Ring, *, before: bool) -> Ring:
    """The part of a closed ring on one side of 180 degrees, closed.

    Sutherland and Hodgman (1974), for one edge.
    """

    def inside(place: tuple[float, float]) -> bool:
        return place[0] <= _HALF if before else place[0] >= _HALF

    found: Ring = []
    for a, b in itertools.pairwise(ring):
        if inside(a):
            found.append(a)
        if inside(a) != inside(b):
            share = (_HALF - a[0]) / (b[0] - a[0])
            found.append((_HALF, round(a[1] + share * (b[1] - a[1]), 7)))
    return [*found, found[0]]
