"""GSI, grid-shift invariance: how much of a map depends on where its tiles happen to lie.

Sample blocks are rendered twice, the second time on a lattice moved by half a stride, through the
very path of `render`. A map that depends on nothing but the ground would come out the same.

    shift = grid_shift("city.tif", "maps")
    print(shift.mean, shift.p99)
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from tilemapper.errors import RasterError
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.lattice import RIM, Block, Lattice
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.block import blend_rows, predict_rows
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.devices import choose_device, choose_precision, default_batch
from tilemapper.render.engine import Engine
from tilemapper.render.layers import palette_of, to_layers
from tilemapper.render.strips import View, read_tile_rows

# Places drawn for each block wanted: a raster may be masked for the most part.
LOOKED_AT = 16


@dataclass(frozen=True)
class GridShift:
    """Difference between two renders whose lattices lie half a stride apart.

    Attributes:
        mean, p99: of the absolute difference in grey levels, over valid pixels and bands.
        changed: share of valid pixels whose colour differs at all.
        pixels: valid pixels compared; ``blocks``: sample blocks that had any.
        shift: pixels by which the lattice was moved, along both axes.
    """

    mean: float
    p99: float
    changed: float
    pixels: int
    blocks: int
    shift: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def grid_shift(
    source: str | Path | SourceSpec,
    model: str | Path | Model | Engine,
    *,
    overlap: int = 64,
    blocks: int = 4,
    size: int = 384,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    tta: bool = False,
    within: Block | None = None,
    options: SourceOptions | None = None,
    tick: Callable[[int], None] | None = None,
) -> GridShift:
    """Renders sample blocks of a raster on two lattices and compares them.

    Args:
        source: the raster, or what `inspect_source` said of it.
        model: an opened model, its folder, its name, or an engine that is ready.
        overlap: pixels that neighbouring tiles share.
        blocks: how many blocks to compare, chosen by ``seed`` where the raster is not masked.
        size: their side in pixels.
        seed: of the choice.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; not used with an engine.
        precision: ``auto``, ``fp32`` or ``bf16``; not used with an engine.
        tta: average the symmetries, as for `render`; not used with an engine.
        within: the part of the raster to choose blocks from, as far as they fit there.
        options: how the raster is presented; not used with a spec.
        tick: called with the number of tiles done since the last call.

    Raises:
        RasterError: the raster cannot be read, is too small for two lattices, or has no valid
            pixel in any sample.
    """
    engine = _engine(model, device, precision, tta)
    if not isinstance(source, SourceSpec):
        gsd_m = engine.model.card.gsd_m
        source = inspect_source(str(source), options or SourceOptions(), gsd_m)
    lattice = Lattice(source.height, source.width, overlap, engine.model.card.tile)
    # Whole steps of 32 px, or the tiles would meet the network in another phase too.
    shift = max(RIM, (lattice.rows.stride // 2 + RIM // 2) // RIM * RIM)
    if min(source.height, source.width) <= shift:
        raise RasterError(
            f"{source.path}: {source.width} x {source.height} px found, more than {shift} px a "
            "side are needed to move the lattice; use a larger raster"
        )
    counts = np.zeros(256, np.int64)
    changed = used = 0
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20), SourceView(source) as view:
        moved_view = _Moved(view, shift)
        moved_lattice = Lattice(source.height - shift, source.width - shift, overlap, lattice.tile)
        places = _choose(lattice, shift, size, LOOKED_AT * blocks, seed, within)
        for block in itertools.islice((b for b in places if _has_valid(view, b)), blocks):
            moved = Block(block.row - shift, block.col - shift, block.height, block.width)
            first, keep = _pixels(view, lattice, block, engine, source.fill, tick)
            second, _ = _pixels(moved_view, moved_lattice, moved, engine, source.fill, tick)
            apart = (np.maximum(first, second) - np.minimum(first, second))[:, keep]
            counts += np.bincount(apart.ravel(), minlength=256)
            changed += int(np.count_nonzero(apart.any(axis=0)))
            used += bool(keep.any())
    return _figures(counts, changed, used, shift, source.path)


class _Moved:
    """A view whose first pixel is that at (shift, shift) of another."""

    def __init__(self, view: View, shift: int) -> None:
        self._view, self._shift = view, shift

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        row, col = row + self._shift, col + self._shift
        return self._view.read(row=row, col=col, height=height, width=width)

    def wanted(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.bool_] | None:
        row, col = row + self._shift, col + self._shift
        return self._view.wanted(row=row, col=col, height=height, width=width)


def _engine(model: str | Path | Model | Engine, device: str, precision: str, tta: bool) -> Engine:
    if isinstance(model, Engine):
        return model
    opened = model if isinstance(model, Model) else open_model(model)
    device = choose_device(device)
    return Engine(
        opened,
        device=device,
        precision=choose_precision(precision, device, opened),
        batch_size=default_batch(device),
        tta=tta,
    )


def _choose(
    lattice: Lattice, shift: int, size: int, count: int, seed: int, within: Block | None
) -> list[Block]:
    """At most so many blocks, in the order drawn.

    No tile reaches them whose part beyond the moved raster's start is reflected. A raster
    too small for that is compared from there on, reflection and all.
    """
    rng = random.Random(seed)
    clear = shift + lattice.tile - RIM
    part = within or Block(0, 0, lattice.height, lattice.width)
    spans = []
    for length, start, extent in (
        (lattice.height, part.row, part.height),
        (lattice.width, part.col, part.width),
    ):
        first = clear if length > clear else shift
        last = max(first, length - size)
        first = min(max(first, start), last)
        spans.append((first, max(first, min(last, start + extent - size)), length))
    drawn = [(rng.randint(*spans[0][:2]), rng.randint(*spans[1][:2])) for _ in range(count)]
    return [
        Block(row, col, min(size, spans[0][2] - row), min(size, spans[1][2] - col))
        for row, col in dict.fromkeys(drawn)
    ]


def _has_valid(view: View, block: Block) -> bool:
    """Whether a block has a pixel to compare."""
    window = {"row": block.row, "col": block.col, "height": block.height, "width": block.width}
    wanted = view.wanted(**window)
    if wanted is not None and not wanted.any():
        return False
    valid = view.read(**window)[1]
    return bool((valid if wanted is None else valid & wanted).any())


def _pixels(
    view: View,
    lattice: Lattice,
    block: Block,
    engine: Engine,
    fill: tuple[int, int, int],
    tick: Callable[[int], None] | None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A block as `render` paints it, (3, height, width) uint8, and what of it is valid."""
    tiles = read_tile_rows(view, lattice, block, fill)
    rows = blend_rows(predict_rows(tiles, engine, tick), lattice, block)
    parts = list(to_layers(rows, palette_of(engine.model)))
    pixels = np.concatenate([layers["map"] for layers, _ in parts], axis=1)
    return pixels, np.concatenate([keep for _, keep in parts])


def _figures(
    counts: NDArray[np.int64], changed: int, used: int, shift: int, path: str
) -> GridShift:
    values = int(counts.sum())
    if not values:
        raise RasterError(
            f"{path}: no valid pixel in any sample block, one is needed; take another part"
        )
    below = np.searchsorted(np.cumsum(counts), 0.99 * values)
    return GridShift(
        mean=float(counts @ np.arange(256)) / values,
        p99=float(below),
        changed=changed / (values // 3),
        pixels=values // 3,
        blocks=used,
        shift=shift,
    )
