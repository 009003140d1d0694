"""File blocks of a map rendered again, from its source and plan, and compared with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.windows import Window

from tilemapper.errors import RasterError, TilemapperError
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.raster.source import SourceView
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.block import blend_rows, predict_rows
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.devices import choose_device, default_batch
from tilemapper.render.engine import Engine
from tilemapper.render.layers import palette_of, to_layers
from tilemapper.render.strips import read_tile_rows

Kind = Literal["map", "classes", "uncertainty"]


def engine_again(
    target: str,
    tags: dict[str, str],
    plan: dict[str, Any],
    named: str | Path | Model | None,
    device: str,
) -> Engine:
    """The engine that painted a map, by its tags and the plan in them.

    Raises:
        ModelError: the model is not found.
        TilemapperError: it is another, or the plan is not of its tile.
    """
    model = named if isinstance(named, Model) else open_model(named or tags["TILEMAPPER_MODEL"])
    if model.card.digest != tags["TILEMAPPER_MODEL_SHA256"]:
        raise TilemapperError(
            f"{model.folder}: is not the model that the map was rendered with (sha256 "
            f"{model.card.digest[:12]} found, {tags['TILEMAPPER_MODEL_SHA256'][:12]} needed); name "
            "the right one with --model"
        )
    if model.card.tile != plan["tile"]:  # the model is the right one: the tag is not
        raise RasterError(
            f"{target}: its TILEMAPPER_PLAN tag is damaged (tile {plan['tile']}, the model's is "
            f"{model.card.tile}); render it again"
        )
    device = choose_device(plan["device"] if device == "auto" else device)
    return Engine(
        model,
        device=device,
        precision=plan["precision"],
        batch_size=plan.get("batch_size") or default_batch(device),
        tta=plan.get("tta", False),
        compiled=plan.get("compile", False),
    )


def render_again(
    dst: Any,
    kind: Kind,
    spec: SourceSpec,
    plan: dict[str, Any],
    engine: Engine,
    blocks: Iterable[Block],
    *,
    first: tuple[int, int] = (0, 0),
) -> Iterator[tuple[Block, bool]]:
    """Each of the blocks, and whether it renders as the map, or this layer beside one, has it.

    first: row and column of the plan's grid at which the map begins, if it is a piece.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), SourceView(spec) as view:
        for block in blocks:
            yield block, _same(dst, view, spec, engine, plan, block, kind, first)


def _same(
    dst: Any,
    view: SourceView,
    spec: SourceSpec,
    engine: Engine,
    plan: dict[str, Any],
    block: Block,
    kind: Kind,
    first: tuple[int, int],
) -> bool:
    window = Window(col_off=block.col, row_off=block.row, width=block.width, height=block.height)
    block = Block(block.row + first[0], block.col + first[1], block.height, block.width)
    lattice = Lattice(spec.height, spec.width, plan["overlap"], plan["tile"])
    tiles = read_tile_rows(view, lattice, block, spec.fill)
    squares = kind == "uncertainty" and not engine.is_palette
    rows = blend_rows(predict_rows(tiles, engine), lattice, block, squares=squares)
    parts = list(to_layers(rows, palette_of(engine.model), (kind,)))
    pixels = np.concatenate([layers[kind] for layers, _ in parts], axis=1)
    keep = np.concatenate([kept for _, kept in parts])
    kept = dst.dataset_mask(window=window) > 0
    return np.array_equal(kept, keep) and np.array_equal(dst.read(window=window) * kept, pixels)
