"""What a comparison says to programs."""

from __future__ import annotations

import json
import math

from tilemapper.report.comparison import TruthFigures


def test_a_figure_that_is_not_known_is_null_in_json():
    figures = TruthFigures("truth.tif", {"psnr": 20.5, "water_iou": math.nan}, 1, 32)
    said = json.dumps(figures.to_json(), allow_nan=False)
    assert json.loads(said)["values"] == {"psnr": 20.5, "water_iou": None}
