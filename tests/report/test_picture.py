from __future__ import annotations

import numpy as np

from tests.conftest import noise, write_raster
from tilemapper.raster.png import write_png
from tilemapper.report.picture import GAP, quicklook, side_by_side


def test_satellite_left_map_right_and_both_at_one_height(tmp_path):
    city = write_raster(tmp_path / "city.tif", np.full((3, 900, 600), 50, np.uint8))
    target = write_raster(tmp_path / "map.tif", np.full((3, 900, 600), 200, np.uint8))
    picture = side_by_side(str(city), str(target))
    width = (picture.shape[1] - GAP) // 2
    assert (picture[:, :width] == 50).all()
    assert (picture[:, -width:] == 200).all()
    assert picture.shape[0] == 640


def test_a_picture_reads_back_as_it_was_written(tmp_path):
    image = np.ascontiguousarray(noise(40, 30).transpose(1, 2, 0))
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(quicklook(str(tmp_path / "a.png")), image)
