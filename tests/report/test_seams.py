"""The seam jump index finds the steps that are there, and none where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from tilemapper.raster.lattice import RIM, Lattice
from tilemapper.report import lattice_lines
from tilemapper.report.lattice_lines import cores, lines_of
from tilemapper.report.seams import seam_jump_index

SIDE = 1200
# Steps between neighbours as natural pictures have them: a third of them none, 1.5 on average.
# A hard step s turns a step a into s + a or s - a, max(a, s) on average, so these give
# E max(a, 1) / E a - 1 = .22 and E max(a, 3) / E a - 1 = 1.26.
LEVELS, SHARES = (0, 1, 2, 6, 7), (0.33, 0.35, 0.20, 0.09, 0.03)


class Picture:
    """An array as a view, which counts the pixels that are read."""

    def __init__(self, rgb, valid=None):
        self.rgb = rgb
        self.valid = np.ones(rgb.shape[:2], bool) if valid is None else valid
        self.read_pixels = 0
        self.most = 0

    def read(self, *, row, col, height, width):
        window = np.s_[row : row + height, col : col + width]
        assert self.rgb[window].shape[:2] == (height, width)
        self.read_pixels += height * width
        self.most = max(self.most, height * width)
        return self.rgb[window], self.valid[window]


def walks(height, width, seed=0):
    """Each row a random walk of its own whose steps are as above, (h, w, 3) uint8, 60 to 180."""
    rng = np.random.default_rng(seed)
    steps = rng.choice(LEVELS, (height, width), p=SHARES) * rng.choice((-1, 1), (height, width))
    grey = 60 + np.abs(steps.cumsum(axis=1) % 240 - 120)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(60, 180, (height, width, 3), dtype=np.uint8)


def stripes(rgb, lattice, step):
    """Every second column of tiles is brighter: a hard step at each start of a tile."""
    tile = np.searchsorted(lattice.cols.starts, np.arange(lattice.width), side="right")
    return (rgb + (tile % 2 * step)[None, :, None]).astype(np.uint8)


def measure(rendered, source=None, overlap=0, **options):
    height, width = rendered.shape[:2]
    return seam_jump_index(
        Picture(rendered),
        None if source is None else Picture(source),
        height=height,
        width=width,
        overlap=overlap,
        **options,
    )


def group(found, axis, kind):
    return next(g for g in found.groups if (g.axis, g.kind) == (axis, kind))


@pytest.mark.parametrize(("step", "expected"), [(1, 0.22), (3, 1.26)])
@pytest.mark.parametrize("axis", ["vertical", "horizontal"])
def test_a_hard_step_gives_what_the_definition_says(step, expected, axis):
    picture = walks(SIDE, SIDE)
    rendered = stripes(picture, Lattice(SIDE, SIDE, 0), step)
    if axis == "horizontal":
        picture, rendered = (rgb.transpose(1, 0, 2) for rgb in (picture, rendered))
    found = measure(rendered, picture)
    assert group(found, axis, "tile starts").index == pytest.approx(expected, abs=0.08)
    other = "horizontal" if axis == "vertical" else "vertical"
    assert group(found, other, "tile starts").index == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("overlap", [0, 32, 64, 128])
def test_seamless_noise_has_no_seam(overlap):
    found = measure(noise(SIDE, SIDE + 300), noise(SIDE, SIDE + 300, seed=1), overlap, block=512)
    assert {g.kind for g in found.groups} == {
        "tile starts",
        "tile ends",
        "block borders",
        "no line",
    }
    # A line of 1200 independent pixels is known to 1 %, a median of ten lines to about half that.
    assert found.index == pytest.approx(0, abs=0.02)
    assert found.worst_group == pytest.approx(0, abs=0.05)


def test_edges_that_the_source_has_at_the_lines_are_no_seams():
    picture = stripes(walks(SIDE, SIDE), Lattice(SIDE, SIDE, 0), 9)
    found = measure(picture, picture)
    assert found.index == 0
    assert found.source > 0.5


def test_a_flat_map_has_no_seam_and_a_step_in_it_is_found():
    flat = np.full((SIDE, SIDE, 3), 200, np.uint8)
    assert measure(flat).index == 0
    found = measure(stripes(flat, Lattice(SIDE, SIDE, 0), 1))
    assert group(found, "vertical", "tile starts").index > 50


def test_a_block_border_alone_is_told_apart_and_placed():
    picture = walks(SIDE, SIDE)
    rendered = picture.copy()
    rendered[:, 512:1024] += 20
    found = measure(rendered, picture, 64, block=512)
    border = group(found, "vertical", "block borders")
    assert border.index > 5
    assert border.worst_at in (512, 1024)
    assert abs(group(found, "vertical", "tile ends").index) < 0.1


def test_masked_pixels_count_for_nothing():
    picture = walks(SIDE, SIDE)
    rendered = stripes(picture, Lattice(SIDE, SIDE, 0), 3)
    valid = np.ones((SIDE, SIDE), bool)
    valid[::2] = False
    rendered[::2] = noise(SIDE // 2, SIDE)
    views = (Picture(rendered, valid), Picture(picture))
    found = seam_jump_index(*views, height=SIDE, width=SIDE, overlap=0)
    assert group(found, "vertical", "tile starts").index == pytest.approx(1.26, abs=0.1)
    none = Picture(rendered, np.zeros((SIDE, SIDE), bool))
    found = seam_jump_index(none, Picture(picture), height=SIDE, width=SIDE, overlap=0)
    assert found.index is None
    assert found.lines == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (51, 51), (60, 900)])
def test_thin_and_tiny_rasters_are_measured_where_they_can_be(shape):
    found = measure(noise(*shape), noise(*shape), 64)
    assert (found.index is None) == (found.lines == 0)
    assert found.lines <= found.lines_there


def test_the_heat_map_is_hot_where_the_step_is():
    picture = walks(SIDE, SIDE)
    rendered = picture.copy()
    starts = Lattice(SIDE, SIDE, 64).cols.starts
    rendered[:400, starts[3] : starts[4]] += 15  # the upper part of one column of tiles
    found = measure(rendered, picture, 64)
    assert found.heat.shape == (7, 7)
    assert (found.cell, found.origin) == (192, -RIM)
    hot = found.heat > 1
    assert hot[:2, 3:5].all()
    assert not hot[4:].any()  # a cell is taken with its neighbours
    assert not hot[:, :2].any()


def test_a_large_raster_is_sampled_with_bounded_windows(monkeypatch):
    monkeypatch.setattr(lattice_lines, "WHOLE_BELOW_PIXELS", 4_000_000)
    monkeypatch.setattr(lattice_lines, "WINDOWS_AN_AXIS", 2)
    picture = walks(1200, 6000)
    rendered = stripes(picture, Lattice(1200, 6000, 0), 3)
    views = Picture(rendered), Picture(picture)
    found = seam_jump_index(*views, height=1200, width=6000, overlap=0, block=4096, seed=3)
    assert not found.whole
    assert found.lines < found.lines_there
    assert views[0].most <= 1024 * 1024
    assert views[0].read_pixels < 1200 * 6000 / 2
    assert group(found, "vertical", "tile starts").index == pytest.approx(1.26, abs=0.15)
    assert group(found, "vertical", "block borders").lines == 1  # looked for on purpose
    again = seam_jump_index(*views, height=1200, width=6000, overlap=0, block=4096, seed=3)
    assert again.index == found.index


@pytest.mark.parametrize("shape", [(700, 1100), (1024, 2048), (1025, 2047)])
def test_small_rasters_are_looked_at_once_and_completely(shape):
    lattice = Lattice(*shape)
    seen = np.zeros(shape, int)
    for core in cores(lattice, 4096, 0):
        seen[core.row : core.row + core.height, core.col : core.col + core.width] += 1
    assert (seen == 1).all()


def test_lines_are_starts_ends_and_block_borders_inside_the_raster():
    lines = lines_of(Lattice(1000, 1000, 64).cols, 512)
    assert lines.at[lines.real].tolist() == [160, 224, 352, 416, 512, 544, 608, 736, 800]
    assert lines.at[lines.kinds["block borders"]].tolist() == [512]
    assert set(lines.at) == set(range(32, 975, 32))


def test_what_the_network_paints_at_its_own_phase_is_no_seam():
    picture = walks(SIDE, SIDE)
    calm = picture.copy()
    calm[:, 4::4] = calm[:, 3:-1:4]  # steps are rare at multiples of 4, as generators have it
    found = measure(calm, picture, 64)
    seen = group(found, "vertical", "tile starts").index
    assert seen == pytest.approx(group(found, "vertical", "no line").index, abs=0.06)
    assert seen < -0.5
    assert found.worst_group == pytest.approx(0, abs=0.08)
    stepped = measure(stripes(calm, Lattice(SIDE, SIDE, 64), 3), picture, 64)
    assert stepped.worst_group > 1
