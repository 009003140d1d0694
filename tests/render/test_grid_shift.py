"""Grid-shift invariance: nothing for what depends on the ground alone, something for a U-Net."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import noise, write_raster
from tilemapper.errors import RasterError
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Block
from tilemapper.render.engine import Engine
from tilemapper.render.grid_shift import grid_shift


@pytest.mark.parametrize("model", ["identity", "constant", "classes"])
@pytest.mark.parametrize("overlap", [0, 32, 64])
def test_what_depends_on_the_pixel_alone_does_not_move_with_the_lattice(
    make_raster, models, model, overlap
):
    source = make_raster(900, 1100)
    found = grid_shift(source, models / model, overlap=overlap, blocks=2, size=200)
    assert (found.mean, found.p99, found.changed) == (0, 0, 0)
    assert found.pixels == 2 * 200 * 200
    assert found.shift % 32 == 0


def test_a_network_with_context_is_found_out(make_raster, models):
    found = grid_shift(make_raster(700, 700), models / "unet", blocks=2, size=128)
    assert found.mean > 0.05
    assert found.p99 >= found.mean
    assert 0 < found.changed <= 1
    again = grid_shift(make_raster(700, 700), models / "unet", blocks=2, size=128)
    assert again == found


def test_masked_pixels_are_not_compared(tmp_path, models):
    mask = np.zeros((700, 700), bool)
    mask[:, :500] = True
    source = write_raster(tmp_path / "half.tif", noise(700, 700), mask=mask)
    found = grid_shift(source, models / "identity", blocks=3, size=200)
    assert 0 < found.pixels < 3 * 200 * 200


def test_blocks_are_looked_for_where_a_raster_is_not_masked(tmp_path, models):
    mask = np.zeros((3000, 3000), bool)
    mask[1200:1700, 1200:1700] = True
    source = write_raster(tmp_path / "sparse.tif", noise(3000, 3000), mask=mask)
    found = grid_shift(source, models / "identity", blocks=2, size=200)
    assert found.blocks == 2


def test_a_raster_without_a_valid_pixel_is_refused_in_one_line(tmp_path, models):
    source = write_raster(tmp_path / "m.tif", noise(500, 500), mask=np.zeros((500, 500), bool))
    with pytest.raises(RasterError, match="no valid pixel in any sample block, one is needed"):
        grid_shift(source, models / "identity", blocks=2, size=200)


def test_a_raster_smaller_than_the_shift_is_refused_in_one_line(make_raster, models):
    with pytest.raises(RasterError, match="90 x 90 px found, more than 96 px"):
        grid_shift(make_raster(90, 90), models / "identity")


def test_a_raster_of_one_tile_is_compared_as_far_as_it_goes(make_raster, models):
    found = grid_shift(make_raster(150, 200), models / "identity", blocks=1)
    assert found.mean == 0
    assert found.pixels == 54 * 104


def test_blocks_are_chosen_from_a_part_of_the_raster(tmp_path, models):
    mask = np.zeros((1500, 1500), bool)
    mask[800:1100, 900:1200] = True
    source = write_raster(tmp_path / "part.tif", noise(1500, 1500), mask=mask)
    part = Block(800, 900, 300, 300)
    found = grid_shift(source, models / "identity", blocks=5, size=200, within=part)
    assert found.pixels == 5 * 200 * 200


def test_symmetries_are_averaged_as_in_the_map(make_raster, models):
    source = make_raster(500, 500)
    call = {"blocks": 1, "size": 128}
    engine = Engine(open_model(models / "unet"), tta=True, batch_size=4)
    averaged = grid_shift(source, models / "unet", tta=True, precision="fp32", **call)
    assert averaged == grid_shift(source, engine, **call)
    assert averaged != grid_shift(source, models / "unet", precision="fp32", **call)
