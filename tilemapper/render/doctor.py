"""What may be wrong with a model on a raster, measured in a minute: five questions, five figures.

Each is a trap that users of pix2pix fall into: ``eval()`` that paints other colours than training
did, tiles that do not match, a map that moves with its lattice, results that depend on the batch,
and a precision that is not enough.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import nn

from tilemapper.errors import RasterError
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.lattice import Block, Lattice, overlap_for
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.block import blend_rows, predict_rows
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.diagnosis import Diagnosis, Finding, unmeasured
from tilemapper.render.engine import Engine, open_engine
from tilemapper.render.grid_shift import grid_shift
from tilemapper.render.layers import palette_of
from tilemapper.render.seam import Seam
from tilemapper.render.strips import read_tile_rows

SIDE = 700  # of the sample: 4 x 4 tiles or so
PLACES = 9  # at which the sample is looked for
SHIFTED = 2  # blocks of the grid shift, 384 px each
Tiles = NDArray[np.uint8]


def diagnose(
    model: str | Path | Model,
    source: str | Path,
    *,
    overlap: int | None = None,
    gsd: str | float = "auto",
    bidx: Sequence[int] | None = None,
    device: str = "auto",
    limit_s: float = 60.0,
) -> Diagnosis:
    """Measures a model on a sample of a raster.

    Args:
        model: an opened model, its folder, or its name.
        source: the raster; its part with the most valid pixels is taken.
        overlap: of the lattice; 64 by default, or what a smaller tile allows.
        gsd: as for `render`.
        bidx: as for `render`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        limit_s: what would take longer is left out, and said to be.

    Raises:
        ModelError, RasterError, DeviceError, OptionError: as they are named.
    """
    begun = time.monotonic()
    opened = model if isinstance(model, Model) else open_model(model)
    overlap = overlap_for(opened.card.tile, overlap)
    options = SourceOptions(gsd=gsd, bidx=tuple(bidx) if bidx else None)
    spec = inspect_source(str(source), options, opened.card.gsd_m)
    engine = open_engine(opened, device=device)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), SourceView(spec) as view:
        sample = _Sample(view, spec, Lattice(spec.height, spec.width, overlap, opened.card.tile))
        tiles = sample.tiles(engine.batch_size)
        batch_s = _seconds(lambda: engine.predict(tiles))
        tile_s = batch_s / len(tiles)
        shifted = SHIFTED * 2 * Lattice(384, 384, overlap, opened.card.tile).tile_count
        # what is asked, the tiles that it takes, and how much slower than usual they are
        plan: list[tuple[str, float, Callable[[], Finding]]] = [
            ("batch invariance", 4 * len(tiles), lambda: _batches(engine, tiles)),
            ("train/eval gap", 6 * len(tiles), lambda: _training_gap(opened, engine, tiles)),
            ("precision gap", 6 * len(tiles), lambda: _precisions(opened, engine, tiles)),
            ("tile mismatch", sample.tile_count, lambda: _mismatch(sample, engine)),
            ("grid shift", shifted, lambda: _shift(spec, engine, sample)),
        ]
        findings = []
        for name, count, measure in plan:
            left_s = limit_s - (time.monotonic() - begun)
            slow = f"would take {count * tile_s:.0f} s on this device"
            findings.append(measure() if count * tile_s < left_s else unmeasured(name, slow))
    return Diagnosis(
        model=opened.card.name,
        raster=spec.path,
        device=str(engine.device),
        tiles_s=1 / tile_s,
        seconds=round(time.monotonic() - begun, 2),
        findings=tuple(findings),
        notices=spec.notices,
    )


class _Sample:
    """The part of a raster that is looked at: of a few places the one with most valid pixels."""

    def __init__(self, view: SourceView, spec: SourceSpec, lattice: Lattice) -> None:
        self._view, self._fill, self.lattice = view, spec.fill, lattice
        height, width = min(SIDE, lattice.height), min(SIDE, lattice.width)
        places = [
            Block(row * (lattice.height - height) // 4, col * (lattice.width - width) // 4,
                  height, width)
            for row in (2, 1, 3) for col in (2, 1, 3)
        ]  # fmt: skip
        shares = [view.read(**vars(place))[1].mean() for place in dict.fromkeys(places)]
        self.block = list(dict.fromkeys(places))[int(np.argmax(shares))]
        if not max(shares):
            raise RasterError(
                f"{spec.path}: no valid pixel at any of {PLACES} places; choose a fuller raster"
            )
        self.tile_count = lattice.tiles_of(self.block)

    def tiles(self, count: int) -> Tiles:
        """So many tiles with valid pixels, (count, tile, tile, 3) uint8; repeated when too few."""
        rows = read_tile_rows(self._view, self.lattice, self.block, self._fill)
        found = np.concatenate([row.tiles[row.active] for row in rows])
        picked = np.linspace(0, len(found) - 1, count).round().astype(int)
        return np.ascontiguousarray(found[picked])

    def disagreement(self, engine: Engine) -> float | None:
        """Overlap disagreement of the sample in grey levels."""
        palette = palette_of(engine.model).astype(np.int32) if engine.is_palette else None
        seam = Seam(palette)
        rows = read_tile_rows(self._view, self.lattice, self.block, self._fill)
        for _ in blend_rows(predict_rows(rows, engine), self.lattice, self.block, seam):
            pass
        return seam.levels()


def _seconds(call: Callable[[], object]) -> float:
    """The second call's time: the first also warms up."""
    call()
    begun = time.monotonic()
    call()
    return max(time.monotonic() - begun, 1e-4)


def _batches(engine: Engine, tiles: Tiles) -> Finding:
    """Is a tile's prediction the same whatever stands beside it in the batch?"""
    straight = engine.predict(tiles)
    apart = np.abs(engine.predict(tiles[::-1].copy())[::-1] - straight)
    alone = np.repeat(tiles[:1], len(tiles), axis=0)
    first = np.abs(engine.predict(alone)[0] - straight[0])
    changed = float(max((apart > 0).mean(), (first > 0).mean()))
    return Finding.of("batch invariance", changed, "of values depend on the batch")


def _training_gap(model: Model, engine: Engine, tiles: Tiles) -> Finding:
    """How far the picture is from that of training, whose norms took each batch's statistics."""
    frozen = model.generator().to(engine.device)
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in frozen.modules()):
        return Finding.of("train/eval gap", 0.0, "grey levels; no batch norm, so there is no gap")
    training = copy.deepcopy(frozen)
    for part in training.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
    with torch.inference_mode():
        batch = torch.from_numpy(tiles).permute(0, 3, 1, 2).to(engine.device) / 127.5 - 1
        one, other = (_expected(model, network(batch)) for network in (frozen, training))
        gap = (one - other).abs().mean().item()
    return Finding.of("train/eval gap", gap, "grey levels on average")


def _expected(model: Model, output: torch.Tensor) -> torch.Tensor:
    """The output as colours in grey levels, (n, 3, tile, tile); of a palette the expected one."""
    if model.card.head == "rgb":
        return (output + 1) * 127.5
    palette = torch.from_numpy(palette_of(model)).to(output)
    return torch.einsum("nkhw,kc->nchw", output.softmax(1), palette)


def _precisions(model: Model, engine: Engine, tiles: Tiles) -> Finding:
    """Are the pixels of bf16 those of fp32?"""
    painted = []
    for precision in ("fp32", "bf16"):
        other = open_engine(
            model, device=str(engine.device), precision=precision, batch_size=len(tiles)
        )
        painted.append(_paint(other, other.predict(tiles)).astype(np.int16))
    near = (np.abs(painted[0] - painted[1]).max(axis=-1) <= 1).mean()
    return Finding.of("precision gap", float(near), "of pixels within 1 grey level, bf16 to fp32")


def _paint(engine: Engine, predictions: NDArray[np.int16]) -> Tiles:
    """Predictions as `render` colours them, (n, tile, tile, 3) uint8."""
    if engine.is_palette:
        colours: Tiles = palette_of(engine.model)[predictions.argmax(axis=1)]
        return colours
    return ((predictions.transpose(0, 2, 3, 1) + 4) >> 3).astype(np.uint8)


def _mismatch(sample: _Sample, engine: Engine) -> Finding:
    """Do tiles agree where they overlap?"""
    levels = sample.disagreement(engine)
    if levels is None:
        apart = "no two tiles with valid pixels overlap; use a larger or fuller raster"
        why = apart if sample.lattice.overlap else "tiles do not overlap with --overlap 0"
        return unmeasured("tile mismatch", why)
    return Finding.of("tile mismatch", levels, "grey levels RMS where tiles overlap")


def _shift(spec: SourceSpec, engine: Engine, sample: _Sample) -> Finding:
    """Does the map stay when its lattice moves?"""
    try:
        # There valid pixels are; of all of a raster that is masked mostly, blocks may have none.
        overlap, part = sample.lattice.overlap, sample.block
        found = grid_shift(spec, engine, overlap=overlap, blocks=SHIFTED, within=part)
    except RasterError as error:
        return unmeasured("grid shift", str(error))
    words = f"grey levels on average, {found.changed:.0%} of pixels change, P99 {found.p99:.0f}"
    return Finding.of("grid shift", found.mean, words)
