"""A map as a lazy array: dask's or xarray's, one chunk a block, rendered where it is computed.

Beside `cluster` the only place that knows dask, and only its arrays: a chunk is a pure function of
plan, model and block, so dask may compute it anywhere, in any order, twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from tilemapper.errors import OptionError
from tilemapper.networks.model import DEFAULT_MODEL, Model, open_model
from tilemapper.raster.source import SourceView
from tilemapper.render.blocks import CACHE_MB, engine_of
from tilemapper.render.engine import Engine
from tilemapper.render.plan import Plan
from tilemapper.render.stream import BANDS, finished_block, plan_blocks

if TYPE_CHECKING:
    import dask.array
    import xarray

LAYERS = (*BANDS, "probabilities")
# The engine itself uses the whole device: two chunks at once would only share its memory.
_DEVICE = threading.Lock()
_engines: dict[tuple[object, ...], Engine] = {}


def to_dask(
    source: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    layers: Sequence[str] = ("map",),
    **options: Any,
) -> dask.array.Array:
    """A raster's map as a lazy dask array, (bands, height, width) uint8; a chunk is a block.

    Computed, it has the pixels that `tilemapper.render` writes, whatever the scheduler. Equal
    arguments give equal keys. Workers must see source and model under the same paths.

    Args:
        source: raster to read.
        model: an opened model, its folder, or its name.
        layers: bands one after another: ``map`` (3), ``valid`` (1, 0 or 255), ``classes`` (1),
            ``probabilities`` (one a class), ``uncertainty`` (1).
        **options: those of `tilemapper.render` that decide pixels, and ``block``, ``batch_size``.

    Raises:
        OptionError: an option that only writing needs, or a wrong one.
        RasterError, ModelError, DeviceError: as they are named.
    """
    return _array(*_planned(source, model, layers, options), layers)


def _array(plan: Plan, model: Model, layers: Sequence[str]) -> dask.array.Array:
    import dask.array

    last_row, last_col = plan.blocks[-1].row, plan.blocks[-1].col
    heights = [block.height for block in plan.blocks if block.col == last_col]
    widths = [block.width for block in plan.blocks if block.row == last_row]
    array: dask.array.Array = dask.array.map_blocks(  # type: ignore[no-untyped-call]
        _chunk,
        plan,
        model,
        tuple(layers),
        chunks=((_band_count(plan, layers),), tuple(heights), tuple(widths)),
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
        name=f"tilemapper-{plan.fingerprint[:32]}-{plan.block}-{'-'.join(layers)}",
    )
    return array


def to_xarray(
    source: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    layers: Sequence[str] = ("map",),
    **options: Any,
) -> xarray.DataArray:
    """`to_dask` as a labelled array: dimensions band, y, x; pixel centres as coordinates.

    The CRS is in the coordinate ``spatial_ref``, after the CF conventions. A rotated grid gets no
    x and y, since one number a column would be wrong. Needs the extra ``tilemapper[xarray]``.

    Raises:
        OptionError: xarray is not installed; and what `to_dask` raises.
    """
    try:
        import xarray
    except ImportError as error:
        raise OptionError(
            "to_xarray: xarray is not installed; pip install 'tilemapper[xarray]', or use to_dask"
        ) from error
    plan, opened = _planned(source, model, layers, options)
    a, b, c, d, e, f = plan.source.transform[:6]
    names = [name for layer in layers for name in _band_names(plan, layer)]
    coords: dict[str, Any] = {"band": names}
    if not (b or d):
        coords["x"] = c + a * (np.arange(plan.source.width) + 0.5)
        coords["y"] = f + e * (np.arange(plan.source.height) + 0.5)
    place = {"GeoTransform": f"{c} {a} {b} {f} {d} {e}"}
    if plan.source.crs_wkt is not None:
        place |= {"crs_wkt": plan.source.crs_wkt, "spatial_ref": plan.source.crs_wkt}
    coords["spatial_ref"] = xarray.Variable((), 0, place)
    return xarray.DataArray(
        _array(plan, opened, layers),
        dims=("band", "y", "x"),
        coords=coords,
        name="map",
        attrs={"model": plan.model_name, "grid_mapping": "spatial_ref"},
    )


def _planned(
    source: str | Path, model: str | Path | Model, layers: Sequence[str], options: dict[str, Any]
) -> tuple[Plan, Model]:
    if isinstance(layers, str) or not layers or set(layers) - set(LAYERS):
        raise OptionError(f"layers {layers!r}: a list of {', '.join(LAYERS)} is needed")
    opened = model if isinstance(model, Model) else open_model(model)
    return plan_blocks(source, opened, tuple(layers), options), opened


def _band_names(plan: Plan, layer: str) -> list[str]:
    if layer == "map":
        return ["red", "green", "blue"]
    return [name for name, _ in plan.palette] if layer == "probabilities" else [layer]


def _band_count(plan: Plan, layers: Sequence[str]) -> int:
    return sum(len(_band_names(plan, layer)) for layer in layers)


def _chunk(
    plan: Plan, model: Model, layers: tuple[str, ...], block_id: tuple[int, int, int] = (0, 0, 0)
) -> NDArray[np.uint8]:
    """The chunk at ``block_id``, (bands, h, w) uint8."""
    across = -(-plan.source.width // plan.block)
    block = plan.blocks[block_id[1] * across + block_id[2]]
    with _DEVICE, rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), SourceView(plan.source) as view:
        done = finished_block(plan, block, view, _engine(plan, model), ("map", *layers))
    bands = {
        "map": done.pixels,
        "valid": (done.valid * np.uint8(255))[None],
        "classes": None if done.classes is None else done.classes[None],
        "uncertainty": None if done.uncertainty is None else done.uncertainty[None],
        "probabilities": done.probabilities,
    }
    return np.concatenate([pixels for name in layers if (pixels := bands[name]) is not None])


def _engine(plan: Plan, model: Model) -> Engine:
    """The engine of a plan, kept for the next chunk; one at a time, since each fills a device."""
    key = (model.card.digest, plan.device, plan.precision, plan.batch_size, plan.tta, plan.compiled)
    if key not in _engines:
        _engines.clear()
        _engines[key] = engine_of(plan, model)
    return _engines[key]
