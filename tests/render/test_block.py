"""The invariants of a block, with generators whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemapper.raster.blend import LEVELS
from tilemapper.raster.lattice import OVERLAPS, Lattice
from tilemapper.render.block import blend_rows, class_rows, grey_rows, predict_rows
from tilemapper.render.seam import Seam
from tilemapper.render.strips import read_tile_rows

TILE = 256


class ArrayView:
    """A source view of an array; a window outside it is an error."""

    def __init__(self, rgb, valid=None, wanted=None):
        self.rgb = rgb
        self.valid = np.ones(rgb.shape[:2], bool) if valid is None else valid
        self.area = wanted

    def _cut(self, array, row, col, height, width):
        assert row >= 0 and col >= 0
        assert row + height <= array.shape[0]
        assert col + width <= array.shape[1]
        return array[row : row + height, col : col + width]

    def read(self, *, row, col, height, width):
        window = (row, col, height, width)
        return self._cut(self.rgb, *window), self._cut(self.valid, *window)

    def wanted(self, *, row, col, height, width):
        return None if self.area is None else self._cut(self.area, row, col, height, width)


class Identity:
    """Gives its input back, in any number of channels, and notes the batch shapes."""

    lanes = 2

    def __init__(self, batch_size=4, channels=3):
        self.batch_size, self.channels, self.shapes = batch_size, channels, set()

    def enter_lane(self):
        pass

    def predict(self, tiles):
        self.shapes.add(tiles.shape)
        bands = [tiles[..., band % 3] for band in range(self.channels)]
        return np.stack(bands, axis=1).astype(np.int16) * LEVELS


class Constant(Identity):
    def predict(self, tiles):
        return np.full_like(super().predict(tiles), 200 * LEVELS)


class Position(Identity):
    """Adds a value that depends on the place within the tile: neighbours disagree."""

    def predict(self, tiles):
        ramp = (np.arange(TILE)[None, :] + np.arange(TILE)[:, None]).astype(np.int16)
        return super().predict(tiles) // 2 + ramp


def run(view, lattice, predictor, size, mean=(9, 9, 9)):
    """(height, width, channels) of the whole raster, rendered block by block; and what is kept."""
    out = np.zeros((lattice.height, lattice.width, 3), np.uint8)
    keep = np.zeros((lattice.height, lattice.width), bool)
    for block in lattice.blocks(size):
        rows = predict_rows(read_tile_rows(view, lattice, block, mean), predictor)
        at = block.row
        for part in blend_rows(rows, lattice, block):
            height = part.keep.shape[0]
            columns = slice(block.col, block.col + block.width)
            out[at : at + height, columns] = grey_rows(part).transpose(1, 2, 0)
            keep[at : at + height, columns] = part.keep
            at += height
        assert at == block.row + block.height
    return out, keep


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


sizes = st.one_of(st.integers(1, 700), st.sampled_from([1, 31, 32, 192, 193, 256, 257, 448, 512]))


@settings(max_examples=30, deadline=None)
@given(
    height=sizes,
    width=sizes,
    overlap=st.sampled_from(OVERLAPS),
    size=st.sampled_from([128, 512, 8192]),
    batch=st.integers(1, 9),
)
def test_an_identity_generator_leaves_every_pixel(height, width, overlap, size, batch):
    rgb = noise(height, width)
    predictor = Identity(batch)
    out, keep = run(ArrayView(rgb), Lattice(height, width, overlap), predictor, size)
    assert np.array_equal(out, rgb)
    assert keep.all()
    assert predictor.shapes == {(batch, TILE, TILE, 3)}


@settings(max_examples=15, deadline=None)
@given(height=sizes, width=sizes, overlap=st.sampled_from(OVERLAPS))
def test_a_constant_generator_gives_the_constant_to_the_very_corner(height, width, overlap):
    out, _ = run(ArrayView(noise(height, width)), Lattice(height, width, overlap), Constant(), 512)
    assert (out == 200).all()


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_neither_blocks_nor_batches_change_a_byte(overlap):
    rgb, lattice = noise(650, 900), Lattice(650, 900, overlap)
    expected, _ = run(ArrayView(rgb), lattice, Position(5), 8192)
    for size, batch in ((128, 1), (256, 3), (512, 8)):
        assert np.array_equal(run(ArrayView(rgb), lattice, Position(batch), size)[0], expected)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 1200),
    width=st.integers(1, 600),
    empty=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 99),
)
def test_masked_pixels_stay_masked_and_never_leak(height, width, empty, seed):
    rng = np.random.default_rng(seed)
    rgb = noise(height, width, seed)
    valid = rng.random((-(-height // 40), -(-width // 40))) < 0.6
    valid[rng.random(len(valid)) < empty] = False
    valid = valid.repeat(40, 0).repeat(40, 1)[:height, :width]
    lattice = Lattice(height, width)
    out, keep = run(ArrayView(rgb, valid), lattice, Identity(), 512)
    assert np.array_equal(keep, valid)
    assert np.array_equal(out, rgb * valid[..., None])
    hidden = np.where(valid[..., None], rgb, 255 - rgb)
    again, _ = run(ArrayView(hidden, valid), lattice, Position(), 512)
    assert np.array_equal(again, run(ArrayView(rgb, valid), lattice, Position(), 512)[0])


def test_tiles_without_a_kept_pixel_are_not_run():
    rgb, valid = noise(256, 2000), np.ones((256, 2000), bool)
    valid[:, 700:] = False
    calls = []
    lattice = Lattice(256, 2000)
    block = lattice.blocks(8192)[0]
    rows = read_tile_rows(ArrayView(rgb, valid), lattice, block, (0, 0, 0))
    list(predict_rows(rows, Identity(2), calls.append))
    columns = [start for start in lattice.cols.starts if start < 700]
    assert sum(calls) == len(lattice.rows.starts) * len(columns)


def test_the_area_of_interest_limits_what_is_kept_but_not_what_the_network_sees():
    rgb, area = noise(500, 500), np.zeros((500, 500), bool)
    area[100:300, 50:400] = True
    lattice = Lattice(500, 500)
    inside, keep = run(ArrayView(rgb, wanted=area), lattice, Position(), 512)
    whole, _ = run(ArrayView(rgb), lattice, Position(), 512)
    assert np.array_equal(keep, area)
    assert np.array_equal(inside, whole * area[..., None])


def test_what_lies_beside_the_area_of_interest_is_not_read():
    class Counting(ArrayView):
        rows = ()

        def read(self, *, row, col, height, width):
            self.rows = (*self.rows, *range(row, row + height))
            return super().read(row=row, col=col, height=height, width=width)

    rgb, area = noise(1500, 300), np.zeros((1500, 300), bool)
    area[700:720, 50:60] = True
    lattice, view = Lattice(1500, 300), Counting(rgb, wanted=area)
    inside, keep = run(view, lattice, Position(), 300)
    assert np.array_equal(keep, area)
    whole, _ = run(ArrayView(rgb), lattice, Position(), 300)
    assert np.array_equal(inside, whole * area[..., None])
    reach = lattice.rows.stride + 2 * lattice.tile  # of the tiles of the block of rows 600 to 900
    assert 600 - reach < min(view.rows) <= 600
    assert 900 < max(view.rows) < 900 + reach


def test_classes_blend_over_any_number_of_channels():
    rgb, lattice = noise(300, 500), Lattice(300, 500)
    block = lattice.blocks(8192)[0]
    rows = predict_rows(read_tile_rows(ArrayView(rgb), lattice, block, (0, 0, 0)), Identity(3, 7))
    classes = np.concatenate([class_rows(part) for part in blend_rows(rows, lattice, block)])
    assert np.array_equal(classes, rgb.argmax(axis=2))


def test_disagreement_is_zero_for_identity_and_the_same_however_blocks_are_cut():
    rgb, lattice = noise(700, 700), Lattice(700, 700)

    def seam(predictor, size):
        total = Seam()
        for block in lattice.blocks(size):
            rows = predict_rows(
                read_tile_rows(ArrayView(rgb), lattice, block, (0, 0, 0)), predictor
            )
            list(blend_rows(rows, lattice, block, total))
        return total.squares, total.count

    assert seam(Identity(), 8192)[0] == 0
    assert seam(Position(), 8192) == seam(Position(), 512) == seam(Position(3), 128)
    squares, count = seam(Position(), 8192)
    # Position adds one eighth a pixel: tiles 192 px apart differ by 192, but for the last pair,
    # which lies 160 px apart here.
    assert 160**2 <= squares / count <= 192**2
