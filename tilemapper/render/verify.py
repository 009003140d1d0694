"""Whether a rendered raster is what its tags say: layout, mask, and blocks rendered again."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from tilemapper.errors import RasterError, too_many_files
from tilemapper.networks.model import Model
from tilemapper.raster.encode import FILE_BLOCK, LOSSLESS
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.raster.opening import GDAL_ERRORS, gdal_name, open_raster
from tilemapper.render.again import Kind, engine_again, render_again
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.claims import Claim, source_of
from tilemapper.render.overview_check import overview_fault

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
        claim = Claim.of(str(target), tags["TILEMAPPER_PLAN"], tags.get("TILEMAPPER_PIECE"))
        verdict.note("tags", good=not missing, fault=f"tags are missing: {', '.join(missing)}")
        spec = source_of(claim, str(target), source)
        verdict.note(
            "size",
            good=claim.has_size(dst.height, dst.width),
            fault=f"{dst.width} x {dst.height} px found, {spec.width} x {spec.height} planned",
        )
        verdict.note(
            "georeferencing",
            good=claim.lies_at(dst.crs, dst.transform[:6]),
            fault="CRS or transform are not those of the plan",
        )
        lossless, kind = _is_lossless(dst), _kind(dst)
        if kind != "map" or claim.plan.get("driver", "COG") == "COG":
            _check_cog(verdict, target)
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
            _check_pixels(verdict, dst)
        if verdict.ok:
            fault = overview_fault(
                str(target), dst, kind=kind, lossless=lossless, seed=seed, piece=claim.is_piece
            )
            verdict.note("overviews", good=not fault, fault=fault)
        if not lossless:
            verdict.notices.append(
                f"{dst.compression.value} changes pixels, so no block is rendered again to compare"
            )
        if blocks and verdict.ok and lossless:
            engine = engine_again(str(target), tags, claim.plan, model, device)
            if "batch_sizes" in claim.plan:
                verdict.notices.append(
                    "memory ran out while it was rendered, and some blocks have another batch "
                    "than the others: these may differ in the last bits when rendered again"
                )
            chosen = _choose(dst.height, dst.width, blocks, seed)
            work = render_again(dst, kind, spec, claim.plan, engine, chosen, first=claim.first)
            for block, same in work:
                verdict.note(block.name, good=same, fault=f"block {block.name} renders otherwise")
                verdict.blocks_rendered += 1
                if tick is not None:
                    tick(1)
    return verdict


def _check_cog(verdict: Verdict, target: str | Path) -> None:
    with warnings.catch_warnings():
        # A map of a raster without georeferencing has none either; that was looked at already.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            valid, errors, _ = cog_validate(gdal_name(str(target)), quiet=True)
        except GDAL_ERRORS as error:  # such as what is no text where text was written
            valid, errors = False, [" ".join(str(error).split())]
            _refuse_shortage(target, errors[0])
    verdict.note("cloud optimized", good=valid, fault=f"no valid COG: {'; '.join(errors)}")


def _refuse_shortage(target: str | Path, said: str) -> None:
    """Of a raster that could not be opened for want of files nothing is known."""
    if (short := too_many_files(target, said)) is not None:
        raise short


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
        _refuse_shortage(dst.name, fault)
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


def _choose(height: int, width: int, count: int, seed: int) -> list[Block]:
    """File blocks at random, the last one always among them: edges are where errors live."""
    blocks = Lattice(height, width).blocks(FILE_BLOCK)
    chosen = random.Random(seed).sample(blocks[:-1], min(count - 1, len(blocks) - 1))
    return [*chosen, blocks[-1]]


def _kind(dst: Any) -> Kind:
    """Which layer of a render this is."""
    if dst.count > 1:
        return "map"
    return "classes" if "TILEMAPPER_CLASSES" in dst.tags() else "uncertainty"
