"""Edges of polygons on their way from one CRS to another: cut to a box, and bent as they run.

An edge is straight in its own CRS (RFC 7946, section 3.1.1) and a curve in another: over ten
degrees of longitude a parallel leaves the line between its ends by 13 km.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

MOST_POINTS = 2**20
_TOLERANCE = 1 / 16  # of a pixel
_HALVINGS = 24  # each divides an edge's error by four: what is not straight by then is torn
_LOOKS = (0.25, 0.5, 0.75)


class TornError(ValueError):
    """An edge does not become straight however often it is halved."""


class TooManyError(ValueError):
    """More than `MOST_POINTS`."""


def cut(ring: Points, box: Sequence[float]) -> Points:
    """A closed ring, (n, 2), cut to a box (left, bottom, right, top); (0, 2) if beside it.

    After Sutherland and Hodgman (1974): what a concave ring leaves in several pieces stays
    joined along the box's border, so the border must lie where nobody looks.
    """
    low, high = ring.min(axis=0), ring.max(axis=0)
    if (high < box[:2]).any() or (low > box[2:]).any():
        return ring[:0]
    for axis in (0, 1):
        if low[axis] < box[axis]:
            ring = _cut_at(ring, axis, box[axis], ring[:, axis] >= box[axis])
        if len(ring) and high[axis] > box[2 + axis]:
            ring = _cut_at(ring, axis, box[2 + axis], ring[:, axis] <= box[2 + axis])
        if len(ring) < 4:  # a line, or nothing: no area
            return ring[:0]
    return ring


def _cut_at(ring: Points, axis: int, limit: float, kept: NDArray[np.bool_]) -> Points:
    """The part of a closed ring on one side of a line; ``kept`` are its points on that side."""
    start, end = ring[:-1], ring[1:]
    crosses = kept[:-1] != kept[1:]
    run = np.where(crosses, end[:, axis] - start[:, axis], 1.0)
    crossing = start + ((limit - start[:, axis]) / run)[:, None] * (end - start)
    crossing[:, axis] = limit
    each = np.stack([crossing, end], axis=1).reshape(-1, 2)
    left = each[np.stack([crosses, kept[1:]], axis=1).ravel()]
    return np.concatenate([left, left[:1]])


def bent(rings: Sequence[Points], to_pixels: Callable[[Points], Points]) -> list[Points]:
    """Closed rings in pixels, with points between theirs wherever an edge's image is no line.

    Raises:
        TornError: an edge passes a place where neighbours are torn apart.
        TooManyError: there are more points than anyone needs.
    """
    points = np.concatenate(rings)
    ring = np.repeat(np.arange(len(rings)), [len(each) for each in rings])
    if len(points) > MOST_POINTS:
        raise TooManyError
    pixels = to_pixels(points)
    at = np.flatnonzero(ring[:-1] == ring[1:])  # edges to be looked at, by their first point
    for _ in range(_HALVINGS):
        at = at[_is_bent(points, pixels, at, to_pixels)]
        if not len(at):
            return np.split(pixels, np.flatnonzero(np.diff(ring)) + 1)
        if len(points) + len(at) > MOST_POINTS:
            raise TooManyError
        middle = (points[at] + points[at + 1]) / 2
        points = np.insert(points, at + 1, middle, axis=0)
        pixels = np.insert(pixels, at + 1, to_pixels(middle), axis=0)
        ring = np.insert(ring, at + 1, ring[at])
        first = at + np.arange(len(at))  # each halved edge moved those after it by one
        at = np.stack([first, first + 1], axis=1).ravel()
    raise TornError


def _is_bent(
    points: Points, pixels: Points, at: NDArray[np.intp], to_pixels: Callable[[Points], Points]
) -> NDArray[np.bool_]:
    """For each edge whether it leaves the line between its ends, looked at in three places.

    In one place alone an edge that swings to both sides alike would look straight.
    """
    found = np.zeros(len(at), bool)
    if not len(at):
        return found
    for share in _LOOKS:
        seen = to_pixels(points[at] + share * (points[at + 1] - points[at]))
        line = pixels[at] + share * (pixels[at + 1] - pixels[at])
        # Turned around, so that what is no number counts as bent.
        found |= ~(np.abs(seen - line).max(axis=1) <= _TOLERANCE)
    return found
