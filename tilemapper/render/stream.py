"""Rendering without a file: finished blocks one after another, for sinks of the user's own.

The blocks, their lattice and their pixels are those of `tilemapper.render`, since both take them
from the same rows. Nothing is staged, so nothing can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from tilemapper.errors import OptionError
from tilemapper.networks.model import DEFAULT_MODEL, Model, open_model
from tilemapper.raster.lattice import Block
from tilemapper.raster.source import SourceView
from tilemapper.render.block import grey_rows
from tilemapper.render.blocks import CACHE_MB, Tick, engine_of, finished_rows, serves
from tilemapper.render.engine import Engine
from tilemapper.render.layers import to_layers
from tilemapper.render.plan import Plan
from tilemapper.render.planning import plan_render
from tilemapper.render.rows import PixelRows
from tilemapper.render.seam import Seam
from tilemapper.render.strips import View

# Options of `render` that say where and by whom, which a stream leaves to its reader.
NOT_HERE = ("driver", "creation_options", "workers", "scheduler", "insecure")
BANDS = {"map": 3, "valid": 1, "classes": 1, "uncertainty": 1}  # and "probabilities": the classes


@dataclass(frozen=True)
class RenderedBlock:
    """One finished block. Pixels that are not valid are 0 in every layer.

    Attributes:
        window: where the block lies in the output grid.
        transform: of the block's own upper left corner.
        pixels: (3, h, w) uint8, the map.
        valid: (h, w) bool.
        classes: (h, w) uint8, index into the model's palette; None unless asked for.
        probabilities: (classes, h, w) uint8, 255 is certain; None unless asked for.
        uncertainty: (h, w) uint8, as `tilemapper.render` writes it; None unless asked for.
        overlap_disagreement: of the block's tiles, RMS in grey levels; None without an overlap.
    """

    window: Window
    transform: Affine
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    classes: NDArray[np.uint8] | None
    probabilities: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None
    overlap_disagreement: float | None


class BlockStream:
    """The blocks of a render, row by row of blocks; each iteration renders them anew.

    Attributes:
        height, width: of the output grid, pixels.
        transform: of the output grid.
        crs: of the output grid, None if the source has none.
        gsd_m: metres a pixel, None if unknown.
        palette: names and colours of a palette model's classes, in the order of their index.
        notices: lines that a user should see.
        plan: all that decides the pixels.
    """

    def __init__(
        self, plan: Plan, model: Model, layers: tuple[str, ...], engine: Engine | None, tick: Tick
    ) -> None:
        self.plan = plan
        self.height, self.width = plan.source.height, plan.source.width
        self.transform = Affine(*plan.source.transform)
        self.crs = None if plan.source.crs_wkt is None else CRS.from_wkt(plan.source.crs_wkt)
        self.gsd_m = plan.source.gsd_m
        self.palette = plan.palette
        self.notices = plan.source.notices
        self._model, self._layers, self._engine, self._tick = model, layers, engine, tick

    def __len__(self) -> int:
        return len(self.plan.blocks)

    def __iter__(self) -> Iterator[RenderedBlock]:
        if self._engine is None or not serves(self._engine, self.plan):
            self._engine = engine_of(self.plan, self._model)
        with SourceView(self.plan.source) as view:
            for block in self.plan.blocks:
                # Not held over the yield: what the reader does with GDAL is the reader's.
                with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
                    done = finished_block(
                        self.plan, block, view, self._engine, self._layers, self._tick
                    )
                yield done

    def __repr__(self) -> str:
        return (
            f"<BlockStream: {self.width} x {self.height} px in {len(self)} block(s) of "
            f"{self.plan.block} px, model {self.plan.model_name} on {self.plan.device}>"
        )


def stream(
    source: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    classes: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    engine: Engine | None = None,
    tick: Tick = lambda _: None,
    **options: Any,
) -> BlockStream:
    """The finished blocks of a raster's map, to be written wherever the caller likes.

    One block is held at a time: 4 bytes a pixel of it, and one more for each layer or class.

    Args:
        source: raster to read.
        model: an opened model, its folder, or its name.
        classes: give the classes too (palette models).
        probabilities: give each class's probability too (palette models).
        uncertainty: give the uncertainty too.
        engine: the model on its device already; opened at the first block if None, or if it would
            not paint as planned.
        tick: called with the number of tiles done since the last call.
        **options: those of `tilemapper.render` that decide pixels, and ``block``, ``batch_size``.

    Raises:
        OptionError: an option that only writing needs, or a wrong one.
        RasterError, ModelError, DeviceError: as they are named.
    """
    wanted = {"classes": classes, "probabilities": probabilities, "uncertainty": uncertainty}
    layers = ("map", "valid", *(name for name, asked in wanted.items() if asked))
    opened = model if isinstance(model, Model) else open_model(model)
    return BlockStream(plan_blocks(source, opened, layers, options), opened, layers, engine, tick)


def plan_blocks(
    source: str | Path, model: Model, layers: tuple[str, ...], options: dict[str, Any]
) -> Plan:
    """The plan of a render that writes nothing; `stream` and `to_dask` say what it may be given."""
    for name in NOT_HERE:
        if name in options:
            raise OptionError(
                f"{name}: has no meaning where nothing is written; leave it out, or use "
                "tilemapper.render"
            )
    if "probabilities" in layers and model.card.head != "palette":
        raise OptionError(
            f"probabilities: model {model.card.name} paints RGB and has none; use a palette model"
        )
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
        return plan_render(
            source,
            None,
            model,
            classes="classes" if "classes" in layers else None,
            uncertainty="uncertainty" if "uncertainty" in layers else None,
            workers=1,
            **options,
        )


def finished_block(
    plan: Plan,
    block: Block,
    view: View,
    engine: Engine,
    layers: tuple[str, ...],
    tick: Tick | None = None,
) -> RenderedBlock:
    """Renders one block into memory; a pure function of plan, block and model."""
    size = (block.height, block.width)
    bands = BANDS | {"probabilities": len(plan.palette)}
    made = {name: np.empty((bands[name], *size), np.uint8) for name in layers if name != "valid"}
    valid = np.empty(size, bool)
    seam = Seam(plan.colours.astype(np.int32) if plan.palette else None)
    at = 0
    # A device may hand out finished colours, unless somebody wants the sums behind them.
    sums = "probabilities" in layers
    with finished_rows(plan, block, view, engine, seam, tick, sums=sums) as rows:
        for part in rows:
            place = slice(at, at + len(part.keep))
            for name, pixels in _layers_of(part, plan, layers):
                made[name][:, place] = pixels
            valid[place] = part.keep
            at = place.stop
    return RenderedBlock(
        window=Window(col_off=block.col, row_off=block.row, width=block.width, height=block.height),
        transform=_moved(plan.source.transform, block),
        pixels=made["map"],
        valid=valid,
        classes=made["classes"][0] if "classes" in made else None,
        probabilities=made.get("probabilities"),
        uncertainty=made["uncertainty"][0] if "uncertainty" in made else None,
        overlap_disagreement=seam.levels(),
    )


def _moved(transform: tuple[float, ...], block: Block) -> Affine:
    """The transform of a block's upper left corner."""
    a, b, c, d, e, f = transform[:6]
    east, north = a * block.col + b * block.row + c, d * block.col + e * block.row + f
    return Affine(a, b, east, d, e, north)


def _layers_of(
    part: PixelRows, plan: Plan, layers: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The layers of some finished rows, each (bands, n, width) uint8 and 0 where not valid."""
    for pixels, _ in to_layers([part], plan.colours, plan.wanted):
        yield from pixels.items()
    if "probabilities" in layers:
        yield "probabilities", grey_rows(part)
