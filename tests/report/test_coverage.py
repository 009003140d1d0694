"""The map of an archive's footprints where longitudes begin anew."""

from __future__ import annotations

import re

from tilemapper.report.coverage import Footprint, coverage_svg

COLOURS = {"done": "#006400"}


def scene(west: float, east: float) -> Footprint:
    ring = [(west, -16.0), (east, -16.0), (east, -17.0), (west, -17.0), (west, -16.0)]
    return Footprint("a", "done", ring)


def widths(*scenes: Footprint) -> list[float]:
    """Of the shapes that are drawn, the whole picture being 1."""
    svg = coverage_svg(list(scenes), COLOURS)
    shapes = [
        [float(point.split(",")[0]) for point in points.split()]
        for points in re.findall(r'points="([^"]+)"', svg)
    ]
    whole = max(map(max, shapes)) - min(map(min, shapes))
    return [(max(shape) - min(shape)) / whole for shape in shapes]


def test_scenes_about_the_date_line_are_neighbours():
    west, across, east = scene(178.5, 179.5), scene(179.5, -179.5), scene(-179.5, -178.5)
    for share in widths(west, across, east):
        assert abs(share - 1 / 3) < 0.01
    for share in widths(east, across, west):
        assert abs(share - 1 / 3) < 0.01


def test_scenes_about_greenwich_stay_neighbours():
    for share in widths(scene(-1, 0), scene(0, 1)):
        assert abs(share - 1 / 2) < 0.01


def test_a_scene_of_the_whole_world_is_as_wide_as_it():
    there = [(-180.0 + 30 * step, 80.0) for step in range(13)]
    back = [(180.0 - 30 * step, -80.0) for step in range(13)]
    assert widths(Footprint("a", "done", [*there, *back, there[0]]))[0] == 1
    svg = coverage_svg([Footprint("a", "done", [*there, *back, there[0]])], COLOURS)
    assert "-180.0000, -80.0000 to 180.0000, 80.0000" in svg
