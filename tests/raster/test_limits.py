"""What a header promises is refused with its sizes as width x height."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tilemapper.errors import RasterError
from tilemapper.raster.limits import check_header


def test_too_many_pixels_are_said_width_first():
    src = SimpleNamespace(count=3, height=2_000_000, width=600_000)
    with pytest.raises(RasterError, match=r"^huge\.vrt: 600000 x 2000000 px found, at most 10\^12"):
        check_header(cast(Any, src), "huge.vrt")
