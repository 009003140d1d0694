"""Whether a rendered raster is what its tags say: layout, mask, and blocks rendered again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from tilemapper.errors import RasterError, TilemapperError
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.encode import FILE_BLOCK, LOSSLESS
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.raster.opening import open_raster
from tilemapper.raster.source import SourceView
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.block import blend_rows, predict_rows
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.claims import Claim, source_of
from tilemapper.render.devices import choose_device, default_batch
from tilemapper.render.engine import Engine
from tilemapper.render.layers import palette_of, to_layers
from tilemapper.render.overview_check import overview_fault
from tilemapper.render.strips import read_tile_rows

Kind = Literal["map", "classes", "uncertainty"]
TAGS = ("TILEMAPPER_MODEL", "TILEMAPPER_MODEL_SHA256", "TILEMAPPER_PLAN", "TILEMAPPER_NOTE")
_COLUMNS = 8 * FILE_BLOCK  # looked at at once


@dataclass
class Verdict:
    """What was checked and what was found; ``ok`` when nothing was wrong."""

    target: str
    checked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # what could not be checked
    blocks_rendered: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self) | {"ok": self.ok}

    def note(self, what: str, *, good: bool, fault: str) -> None:
        """Adds a check by its outcome."""
        self.checked.append(what)
        if not good:
            self.faults.append(fault)


def verify(
    target: str | Path,
    *,
    model: str | Path | Model | None = None,
    source: str | Path | None = None,
    blocks: int = 4,
    seed: int = 0,
    device: str = "auto",
    tick: Callable[[int], None] | None = None,
) -> Verdict:
    """Checks a rendered map, or a layer beside one; see the fields of the result.

    Args:
        target: the map, or a raster that ``classes`` or ``uncertainty`` of `render` wrote.
        model: the model it was rendered with, when it is not found by the name in its tags.
        source: its source, when it lies elsewhere now; needed where it is remote or of an uncommon
            kind, which is not opened because a tag says so.
        blocks: file blocks of 512 px to render again and compare, chosen by ``seed``; 0 for none.
        seed: of the choice.
        device: to render on; the map's own kind of device gives the same bytes.
        tick: called with the number of file blocks done since the last call.

    Raises:
        RasterError: the map cannot be opened, or was not written by tilemapper.
        ModelError, RasterError: model or source are missing, or are not those of the map.
    """
    verdict = Verdict(str(target))
    with open_raster(str(target)) as dst:
        tags = dst.tags()
        missing = [name for name in TAGS if name not in tags]
        if "TILEMAPPER_PLAN" in missing:
            raise RasterError(
                f"{target}: has no TILEMAPPER_PLAN tag, so tilemapper did not render it; verify "
                "works on its outputs only"
            )
        claim = Claim.of(str(target), tags["TILEMAPPER_PLAN"])
        verdict.note("tags", good=not missing, fault=f"tags are missing: {', '.join(missing)}")
        spec = source_of(claim, str(target), source)
        verdict.note(
            "size",
            good=(dst.height, dst.width) == (spec.height, spec.width),
            fault=f"{dst.width} x {dst.height} px found, {spec.width} x {spec.height} planned",
        )
        verdict.note(
            "georeferencing",
            good=claim.lies_at(dst.crs, dst.transform[:6]),
            fault="CRS or transform are not those of the plan",
        )
        _check_cog(verdict, target)
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
            _check_pixels(verdict, dst)
        lossless = _is_lossless(dst)
        if verdict.ok:
            kind = _kind(dst)
            fault = overview_fault(str(target), dst, kind=kind, lossless=lossless, seed=seed)
            verdict.note("overviews", good=not fault, fault=fault)
        if not lossless:
            verdict.notices.append(
                f"{dst.compression.value} changes pixels, so no block is rendered again to compare"
            )
        if blocks and verdict.ok and lossless:
            kind = _kind(dst)
            opened = _model(tags, model)
            if opened.card.tile != claim.plan["tile"]:  # the model is the right one: the tag is not
                raise RasterError(
                    f"{target}: its TILEMAPPER_PLAN tag is damaged (tile {claim.plan['tile']}, the "
                    f"model's is {opened.card.tile}); render it again"
                )
            with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), SourceView(spec) as view:
                engine = _engine(opened, claim.plan, device)
                if "batch_sizes" in claim.plan:
                    verdict.notices.append(
                        "memory ran out while it was rendered, and some blocks have another batch "
                        "than the others: these may differ in the last bits when rendered again"
                    )
                for block in _choose(spec, blocks, seed):
                    same = _same(dst, view, spec, engine, claim.plan, block, kind)
                    verdict.note(
                        block.name, good=same, fault=f"block {block.name} renders otherwise"
                    )
                    verdict.blocks_rendered += 1
                    if tick is not None:
                        tick(1)
    return verdict


def _check_cog(verdict: Verdict, target: str | Path) -> None:
    valid, errors, _ = cog_validate(str(target), quiet=True)
    verdict.note("cloud optimized", good=valid, fault=f"no valid COG: {'; '.join(errors)}")


def _check_pixels(verdict: Verdict, dst: Any) -> None:
    """Decodes every file block, mask included: DEFLATE finds most damage by its own checksum."""
    fault = ""
    try:
        for window in _windows(dst.height, dst.width):
            dst.read(window=window)
            dst.dataset_mask(window=window)
    except RasterioError as error:
        row, col = window.row_off, window.col_off
        fault = (
            f"pixels of rows {row} to {row + window.height - 1}, columns {col} to "
            f"{col + window.width - 1} cannot be read ({error})"
        )
    verdict.note("pixels", good=not fault, fault=fault)


def _windows(height: int, width: int) -> Iterator[Window]:
    """Windows of whole file blocks that cover a raster, none of a size that grows with it."""
    for row in range(0, height, FILE_BLOCK):
        for col in range(0, width, _COLUMNS):
            yield Window(col, row, min(_COLUMNS, width - col), min(FILE_BLOCK, height - row))


def _is_lossless(dst: Any) -> bool:
    """Whether a raster's compression keeps every pixel; some of GDAL's do so by option."""
    name = "NONE" if dst.compression is None else dst.compression.name.upper()
    said = dst.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION_REVERSIBILITY", "")
    return name.removeprefix("ADOBE_") in LOSSLESS or said.startswith("LOSSLESS")


def _model(tags: dict[str, str], named: str | Path | Model | None) -> Model:
    model = named if isinstance(named, Model) else open_model(named or tags["TILEMAPPER_MODEL"])
    if model.card.digest != tags["TILEMAPPER_MODEL_SHA256"]:
        raise TilemapperError(
            f"{model.folder}: is not the model that the map was rendered with (sha256 "
            f"{model.card.digest[:12]} found, {tags['TILEMAPPER_MODEL_SHA256'][:12]} needed); name "
            "the right one with --model"
        )
    return model


def _engine(model: Model, plan: dict[str, Any], device: str) -> Engine:
    device = choose_device(plan["device"] if device == "auto" else device)
    return Engine(
        model,
        device=device,
        precision=plan["precision"],
        batch_size=plan.get("batch_size") or default_batch(device),
        tta=plan.get("tta", False),
        compiled=plan.get("compile", False),
    )


def _choose(spec: SourceSpec, count: int, seed: int) -> list[Block]:
    """File blocks at random, the last one always among them: edges are where errors live."""
    blocks = Lattice(spec.height, spec.width).blocks(FILE_BLOCK)
    chosen = random.Random(seed).sample(blocks[:-1], min(count - 1, len(blocks) - 1))
    return [*chosen, blocks[-1]]


def _kind(dst: Any) -> Kind:
    """Which layer of a render this is."""
    if dst.count > 1:
        return "map"
    return "classes" if "TILEMAPPER_CLASSES" in dst.tags() else "uncertainty"


def _same(
    dst: Any,
    view: SourceView,
    spec: SourceSpec,
    engine: Engine,
    plan: dict[str, Any],
    block: Block,
    kind: Kind,
) -> bool:
    lattice = Lattice(spec.height, spec.width, plan["overlap"], plan["tile"])
    tiles = read_tile_rows(view, lattice, block, spec.fill)
    squares = kind == "uncertainty" and not engine.is_palette
    rows = blend_rows(predict_rows(tiles, engine), lattice, block, squares=squares)
    parts = list(to_layers(rows, palette_of(engine.model), (kind,)))
    pixels = np.concatenate([layers[kind] for layers, _ in parts], axis=1)
    keep = np.concatenate([kept for _, kept in parts])
    window = Window(col_off=block.col, row_off=block.row, width=block.width, height=block.height)
    kept = dst.dataset_mask(window=window) > 0
    return np.array_equal(kept, keep) and np.array_equal(dst.read(window=window) * kept, pixels)
