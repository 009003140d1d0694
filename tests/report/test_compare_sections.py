"""The sections of a comparison's page: figures that mean what stands beside them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.conftest import noise, write_raster
from tilemapper import render
from tilemapper.api.compare import compare
from tilemapper.report.compare_sections import compare_sections


def test_hectares_are_those_of_the_valid_ground_alone(models, tmp_path):
    city, target = tmp_path / "city.tif", tmp_path / "map.tif"
    mask = np.ones((300, 400), bool)
    mask[:, 100:] = False
    write_raster(city, noise(300, 400), mask=mask)
    render(city, target, models / "classes")
    found = compare(city, target, model=models / "classes", shift_blocks=0)
    html = compare_sections(found, [])
    cells = re.findall(r'<td class="n">([\d.,]+)</td><td class="share"', html)
    ground = 300 * 100 * found.gsd_m**2 / 1e4
    assert len(cells) >= 3
    assert sum(map(float, cells)) == pytest.approx(ground, abs=0.05 * len(cells))
