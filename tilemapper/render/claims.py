"""What a map's tags say of its making, checked before any of it is believed.

A map may come from a stranger: no address and no uncommon driver that only its tags name is opened.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.crs import CRS

from tilemapper.errors import RasterError, TilemapperError
from tilemapper.raster.area import Area
from tilemapper.raster.drivers import DEFAULT_DRIVERS
from tilemapper.raster.encode import stored_crs
from tilemapper.raster.geometry import shifted
from tilemapper.raster.identity import TIMES, identity_of
from tilemapper.raster.lattice import Lattice
from tilemapper.raster.opening import is_remote, open_raster
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.joining import placed
from tilemapper.render.plan import MOST_BATCH

# Of a pixel: a GeoTIFF keeps doubles as they are, other writers round the last digits.
CORNER, STEP = 1e-3, 1e-9


@dataclass(frozen=True)
class Claim:
    """A map's plan: its values, the source as it has it, and the CRS a GeoTIFF makes of its own.

    first: row and column of the plan's grid at which the map begins; more than 0, 0 only in a piece
    that was cut out of a mosaic's map.
    """

    plan: dict[str, Any]
    spec: SourceSpec
    crs: CRS | None
    first: tuple[int, int] = (0, 0)
    is_piece: bool = False

    @classmethod
    def of(cls, target: str, text: str, piece: str | None = None) -> Claim:
        """The plan in a tag's text; ``piece``: what another tag says of a part of a mosaic's map.

        Raises:
            RasterError: a tag is damaged.
        """
        place = re.fullmatch(r"row (\d{1,9}), col (\d{1,9})", piece or "row 0, col 0")
        if place is None:
            raise RasterError(f"{target}: its TILEMAPPER_PIECE tag is damaged; render it again")
        try:
            plan = json.loads(text)
            spec = SourceSpec.from_json(plan["source"] | {"notices": ()})
            Lattice(spec.height, spec.width, plan["overlap"], plan["tile"])
            if not (
                len(spec.fill) == 3 and len(spec.transform) >= 6 and isinstance(spec.path, str)
            ):
                raise ValueError("fill, transform or path of the source")
            if plan["precision"] not in ("fp32", "bf16") or not isinstance(plan["device"], str):
                raise ValueError("precision or device")
            batch = plan.get("batch_size", 1)
            if not (isinstance(batch, int) and 1 <= batch <= MOST_BATCH):
                raise ValueError("batch_size")
            dict(spec.identity)
            if spec.aoi is not None:
                Area(spec.aoi)
            crs = stored_crs(CRS.from_wkt(spec.crs_wkt)) if spec.crs_wkt else None
        except (ValueError, LookupError, TypeError, AttributeError, TilemapperError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RasterError(
                f"{target}: its TILEMAPPER_PLAN tag is damaged ({reason}); render it again"
            ) from error
        return cls(plan, spec, crs, (int(place[1]), int(place[2])), piece is not None)

    def has_size(self, height: int, width: int) -> bool:
        """Whether a raster has the size that was planned, or is a piece that lies in it."""
        row, col = self.first
        if self.is_piece:
            return row + height <= self.spec.height and col + width <= self.spec.width
        return (height, width) == (self.spec.height, self.spec.width)

    def lies_at(self, crs: CRS | None, transform: Sequence[float]) -> bool:
        """Whether a raster lies where this one was planned, to a small part of a pixel."""
        if not self.spec.crs_wkt and not placed(self.spec.transform):
            return not crs and not placed(tuple(transform))  # pixels alone, counted up or down
        row, col = self.first
        a, b, c, d, e, f = shifted(Affine(*self.spec.transform[:6]), row=row, col=col)[:6]
        pixel = max(math.hypot(a, d), math.hypot(b, e))
        steps = zip((a, b, d, e), (transform[at] for at in (0, 1, 3, 4)), strict=True)
        return (
            (crs or None) == self.crs
            and all(abs(one - other) <= STEP * pixel for one, other in steps)
            and max(abs(transform[2] - c), abs(transform[5] - f)) <= CORNER * pixel
        )


def source_of(claim: Claim, target: str, named: str | Path | None) -> SourceSpec:
    """The source as the plan has it, where the plan or the user says, checked to be the same.

    Raises:
        RasterError: it is another, or only the tag names an address or an uncommon driver.
    """
    values = claim.spec.to_json() | {"notices": ()}
    path, driver = claim.spec.path, claim.spec.driver
    if named is not None:
        values["path"] = str(named)
    elif is_remote(path):
        raise RasterError(
            f"{target}: its source is remote ({path}); name it with --source URL if you trust it"
        )
    elif driver not in DEFAULT_DRIVERS:
        raise RasterError(
            f"{target}: its source is a {driver} file ({path}), which may open others; name it "
            "with --source if you trust it"
        )
    spec = SourceSpec.from_json(values)
    with open_raster(spec.path, allow_drivers=(spec.driver,)) as src:
        found = identity_of(spec.path, src)
    # A copy has another date: what counts is its size and its bytes.
    changed = [
        key for key in spec.identity if key not in TIMES and found.get(key) != spec.identity[key]
    ]
    if changed:
        raise RasterError(
            f"{spec.path}: is not the raster that was rendered ({', '.join(changed)} differ); "
            "name the right one with --source"
        )
    return spec
