"""A map and what belongs to it, on the map's grid: its source, and a true map."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilemapper.errors import RasterError
from tilemapper.raster.lattice import Lattice
from tilemapper.raster.laying import Footing, LaidView
from tilemapper.raster.opening import open_raster
from tilemapper.raster.source import SourceView, inspect_source
from tilemapper.raster.spec import SourceOptions, SourceSpec
from tilemapper.report.seams import View

_NATIVE = "native"


@dataclass
class Rendered:
    """A map as it lies on the disk: its spec, its tags, and the plan that it was rendered by."""

    spec: SourceSpec
    view: LaidView
    tags: dict[str, str]
    plan: dict[str, Any] | None


@dataclass
class Laid:
    """A raster on a map's grid: windows by ``view``, a small picture by ``laid.picture``."""

    path: str
    view: View
    laid: LaidView
    how: str
    notices: list[str] = field(default_factory=list)
    planned: SourceSpec | None = None  # as the map's plan has it, if this is its own source

    def picture(self, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `LaidView.picture`."""
        return self.laid.picture(height, width)


@contextlib.contextmanager
def open_rendered(path: str, *, allow_drivers: Sequence[str] = ()) -> Iterator[Rendered]:
    """Opens a map; any raster will do, but only ours has a plan.

    Raises:
        RasterError: it cannot be opened or understood.
    """
    options = SourceOptions(gsd=_NATIVE, allow_drivers=tuple(allow_drivers))
    spec = inspect_source(path, options, None)
    with open_raster(path, allow_drivers=allow_drivers) as src:
        tags = dict(src.tags())
    with LaidView(spec, height=spec.height, width=spec.width, footing=Footing()) as view:
        yield Rendered(spec, view, tags, _plan_of(tags))


def _plan_of(tags: dict[str, str]) -> dict[str, Any] | None:
    """The plan in a map's tags; None if there is none that can be read."""
    try:
        plan = json.loads(tags["TILEMAPPER_PLAN"])
        Lattice(1, 1, plan["overlap"], plan["tile"])  # refuses what no render can have had
        return plan if isinstance(plan["source"], dict) else None
    except (KeyError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def lay(
    path: str, rendered: Rendered, *, crisp: bool = False, allow_drivers: Sequence[str] = ()
) -> Iterator[Laid]:
    """Opens a raster on a map's grid: as the map's own source, else by its place on the ground.

    Args:
        path: the raster.
        rendered: the map.
        crisp: it is a map too, whose colours must not be mixed.
        allow_drivers: GDAL's names of drivers beyond the usual ones.

    Raises:
        RasterError: it cannot be read, or lies elsewhere.
    """
    grid = rendered.spec
    with contextlib.ExitStack() as stack:
        planned = None if crisp else _as_planned(path, rendered.plan, grid)
        if planned is not None:
            view = stack.enter_context(SourceView(planned))
            laid = stack.enter_context(_lay(planned, grid, _planned_footing(planned), crisp))
            how = "the raster that the map was rendered from"
            yield Laid(path, view, laid, how, planned=planned)
            return
        options = SourceOptions(gsd=_NATIVE, allow_drivers=tuple(allow_drivers))
        spec = inspect_source(path, options, None)
        footing, how = _place(spec, grid)
        laid = stack.enter_context(_lay(spec, grid, footing, crisp))
        yield Laid(path, laid, laid, how, list(spec.notices) if footing is None else [])


def _lay(spec: SourceSpec, grid: SourceSpec, footing: Footing | None, crisp: bool) -> LaidView:
    return LaidView(
        spec,
        height=grid.height,
        width=grid.width,
        footing=footing,
        crs_wkt=grid.crs_wkt,
        transform=Affine(*grid.transform),
        crisp=crisp,
    )


def _as_planned(path: str, plan: dict[str, Any] | None, grid: SourceSpec) -> SourceSpec | None:
    """The source as the map's plan has it, if this is that very file."""
    if plan is None:
        return None
    try:
        spec = SourceSpec.from_json(plan["source"] | {"path": path, "notices": ()})
        SourceView(spec).close()  # checks that it is the same file
    except (RasterError, KeyError, TypeError, ValueError):
        return None
    return spec if (spec.height, spec.width) == (grid.height, grid.width) else None


def _planned_footing(spec: SourceSpec) -> Footing:
    down, across = (spec.warp.row_step, spec.warp.col_step) if spec.warp else (1.0, 1.0)
    return Footing(down, spec.crop[0] * down, across, spec.crop[1] * across)


def _place(spec: SourceSpec, grid: SourceSpec) -> tuple[Footing | None, str]:
    """How the map's grid lies on a raster's pixels (None: it must be warped), and in words."""
    placed = [_is_placed(one) for one in (spec, grid)]
    same_size = (spec.height, spec.width) == (grid.height, grid.width)
    if not all(placed):
        if same_size:
            return Footing(), "laid over the map pixel by pixel"
        lacking = spec.path if not placed[0] else grid.path
        raise RasterError(
            f"{spec.path}: {spec.width} x {spec.height} px found, the map has {grid.width} x "
            f"{grid.height} px, and {lacking} has no georeferencing to lay one over the other by; "
            "give rasters of one size, or georeference it with gdal_translate -a_srs -a_ullr"
        )
    if CRS.from_wkt(spec.crs_wkt) != CRS.from_wkt(grid.crs_wkt):
        return None, f"warped to the map's CRS from {name_of(spec.crs_wkt)}"
    inverse, ours = ~Affine(*spec.transform), Affine(*grid.transform)
    corner, right, down = (
        _through(inverse, ours, col, row) for col, row in ((0, 0), (1, 0), (0, 1))
    )
    steps = right[0] - corner[0], down[1] - corner[1]
    turned = abs(right[1] - corner[1]) * grid.width, abs(down[0] - corner[0]) * grid.height
    if min(steps) <= 0 or max(turned) > 0.05:
        return None, "warped to the map's grid"
    footing = Footing(
        row_step=_snapped(steps[1], 1e-7),
        row_first=_snapped(corner[1], 1e-3),
        col_step=_snapped(steps[0], 1e-7),
        col_first=_snapped(corner[0], 1e-3),
    )
    if footing.whole:
        return footing, "on the map's own grid"
    return footing, "resampled to the map's grid"


def _through(inverse: Affine, ours: Affine, col: float, row: float) -> tuple[float, float]:
    """The (col, row) in one raster of a place in another."""
    x, y = (ours.a * col + ours.b * row + ours.c, ours.d * col + ours.e * row + ours.f)
    return (
        inverse.a * x + inverse.b * y + inverse.c,
        inverse.d * x + inverse.e * y + inverse.f,
    )


def _snapped(value: float, within: float) -> float:
    """Whole where only rounding keeps it from that."""
    return float(round(value)) if abs(value - round(value)) < within else value


def _is_placed(spec: SourceSpec) -> bool:
    return spec.crs_wkt is not None and not Affine(*spec.transform).is_identity


def name_of(crs_wkt: str | None) -> str:
    """A CRS in a few words: its authority's code, or its name."""
    if crs_wkt is None:
        return "no CRS"
    crs = CRS.from_wkt(crs_wkt)
    authority = crs.to_authority()
    if authority:
        return ":".join(authority)
    return crs_wkt.partition('"')[2].partition('"')[0] or "an unnamed CRS"
