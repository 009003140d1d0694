"""Memory of finished blocks: freed at once, not when the garbage collector looks."""

from __future__ import annotations

import gc

import tilemapper
from tilemapper.raster.pyramid import Pyramid
from tilemapper.render.blockfile import _LayerFile


def test_a_finished_block_leaves_no_buffers_to_the_garbage_collector(make_raster, models, tmp_path):
    source = make_raster(700, 1100)
    gc.collect()
    gc.disable()
    try:
        tilemapper.render(source, tmp_path / "map.tif", models / "identity", block=512)
        left = [o for o in gc.get_objects() if type(o) in (Pyramid, _LayerFile)]
    finally:
        gc.enable()
    assert not left
