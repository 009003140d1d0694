"""What a user asks of a source, and what a worker needs to present it again."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tilemapper.errors import OptionError
from tilemapper.raster.tone import Statistics, Tone


@dataclass(frozen=True)
class SourceOptions:
    """How a raster is to be presented; the names are those of the flags of ``render``.

    gsd: "auto", "native" or metres. bidx: red, green, blue band, counted from 1. nodata replaces
    the declared one. scale: the values that become 0 and 255. bounds: left, bottom, right, top in
    the units of the output grid; without georeferencing these are pixels, (col, row). mask: path
    of a GeoJSON file whose polygons limit the work.

    Raises:
        OptionError: a value makes no sense for any raster.
    """

    gsd: str | float = "auto"
    bidx: tuple[int, ...] | None = None
    nodata: float | None = None
    scale: tuple[float, float] | None = None
    bounds: tuple[float, float, float, float] | None = None
    mask: str | None = None
    tone: Statistics | None = None
    allow_drivers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.gsd, str):
            good = self.gsd in ("auto", "native")
        else:
            good = math.isfinite(self.gsd) and self.gsd > 0
        if not good:
            raise OptionError(f"--gsd: {self.gsd} found; give auto, native, or metres above 0")
        if self.bidx is not None and (len(self.bidx) != 3 or min(self.bidx) < 1):
            raise OptionError(
                f"--bidx: {','.join(map(str, self.bidx))} found; give three bands counted from 1, "
                "such as 1,2,3"
            )
        if self.scale is not None and not (
            all(map(math.isfinite, self.scale)) and self.scale[0] < self.scale[1]
        ):
            raise OptionError(f"--scale: {self.scale} found; give two numbers MIN,MAX, MIN < MAX")
        if self.bounds is not None:
            left, bottom, right, top = self.bounds
            if not (all(map(math.isfinite, self.bounds)) and left < right and bottom < top):
                raise OptionError(
                    f"--bounds: {self.bounds} found; give LEFT,BOTTOM,RIGHT,TOP with left < right "
                    "and bottom < top, in the raster's units"
                )


@dataclass(frozen=True)
class Warp:
    """Source pixels that an output pixel spans along rows and along columns."""

    row_step: float
    col_step: float


@dataclass(frozen=True)
class SourceSpec:
    """A source as a worker presents it again; part of a plan's fingerprint.

    height, width, transform (a..f), crs_wkt and gsd_m are those of the output grid, after
    resampling and ``--bounds``. bidx: the three bands read, or the one of a palette. nodata: a
    value for each band of bidx, or None. mask: validity comes from a mask (internal or ``.msk``).
    alpha: its band and the smallest value that counts as valid. scale: what becomes 0 and 255 in
    each band, or None where bytes are taken as they are. crop: row and column of the output grid
    at which ``--bounds`` begins. aoi: polygons in pixels of the output grid (GeoJSON geometry).
    fill: mean colour of the valid pixels. has_invalid: False only if every pixel is valid for
    certain. tone: gain and offset of each band, or None. notices: lines that a user should see.
    """

    path: str
    driver: str
    identity: dict[str, Any]
    height: int
    width: int
    transform: tuple[float, ...]
    crs_wkt: str | None
    gsd_m: float | None
    bidx: tuple[int, ...]
    palette: bool
    nodata: tuple[float | None, ...] | None
    mask: bool
    alpha: tuple[int, float] | None
    scale: tuple[tuple[float, float], ...] | None
    warp: Warp | None
    crop: tuple[int, int]
    aoi: dict[str, Any] | None
    fill: tuple[int, int, int]
    has_invalid: bool | None
    tone: Tone | None = None
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_json` gives an equal spec back."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SourceSpec:
        """The spec that `to_json` wrote."""
        named = {key: _tuples(value) for key, value in values.items()}
        named["identity"] = values["identity"]
        named["aoi"] = values["aoi"]
        if values["warp"] is not None:
            named["warp"] = Warp(**values["warp"])
        if values["nodata"] is not None:
            named["nodata"] = tuple(None if v is None else float(v) for v in values["nodata"])
        return cls(**named)


def _plain(value: Any) -> Any:
    """Tuples as lists, and NaN and infinities as words, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
