"""`doctor`: what may be wrong with a model, on a raster of the user's or on a city of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilemapper.networks.model import Model
from tilemapper.render.diagnosis import Diagnosis
from tilemapper.render.doctor import diagnose
from tilemapper.report.city import write_city

CITY_SIDE = 1024  # pixels


def doctor(
    model: str | Path | Model,
    raster: str | Path | None = None,
    *,
    overlap: int | None = None,
    gsd: str | float = "auto",
    bidx: Sequence[int] | None = None,
    device: str = "auto",
    limit_s: float = 60.0,
) -> Diagnosis:
    """Measures a model on a raster within a minute, and says in words what to think of it.

    Args:
        model: an opened model, its folder, or its name.
        raster: what it is to be used on; a synthetic city of the size of 1024 px if None.
        overlap: pixels that neighbouring tiles share; 64 by default, or what a smaller tile allows.
        gsd: as for `tilemapper.render`.
        bidx: as for `tilemapper.render`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        limit_s: what would take longer is left out, and said to be.

    Raises:
        ModelError, RasterError, DeviceError, OptionError: as they are named.
    """
    asked: dict[str, Any] = {"overlap": overlap, "gsd": gsd, "bidx": bidx, "device": device}
    if raster is not None:
        return diagnose(model, raster, limit_s=limit_s, **asked)
    with tempfile.TemporaryDirectory() as folder:
        city = Path(folder) / "city.tif"
        written = write_city(city, height=CITY_SIDE, width=CITY_SIDE)
        found = diagnose(model, city, limit_s=limit_s - written.seconds, **asked)
    return replace(found, raster=f"the sample city, {CITY_SIDE} px")
