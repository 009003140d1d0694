"""A plan's blocks in this process: each from its window of the source to encoded file blocks.

`tilemapper.render.cluster.blocks` spreads the same blocks over other processes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tilemapper.networks.model import Model
from tilemapper.raster.lattice import Block
from tilemapper.raster.source import SourceView
from tilemapper.render.block import blend_rows, predict_rows
from tilemapper.render.blockfile import stage_block
from tilemapper.render.cuda.block import device_rows
from tilemapper.render.cuda.lanes import render_abreast
from tilemapper.render.cuda.painter import painter_of
from tilemapper.render.devices import naming
from tilemapper.render.engine import Engine
from tilemapper.render.journal import Receipt
from tilemapper.render.layers import to_layers
from tilemapper.render.pipe import staged
from tilemapper.render.plan import Plan
from tilemapper.render.rows import PixelRows
from tilemapper.render.seam import Seam
from tilemapper.render.strips import View, read_tile_rows

# GDAL's cache must hold one row of a block's file blocks, not the raster.
CACHE_MB = 32

Tick = Callable[[int], None]


def render_blocks(
    plan: Plan,
    model: Model,
    pending: Sequence[Block],
    folder: Path,
    tick: Tick | None,
    engine: Engine | None = None,
) -> Generator[Receipt, None, None]:
    """Renders the pending blocks in this process, on one device: one after another on a CPU.

    Raises:
        DeviceLostError: the GPU failed on the way; blocks that are finished stay so.
    """
    if pending:
        with naming(plan.device):
            yield from _rendered(plan, model, pending, folder, tick, engine)


def _rendered(
    plan: Plan,
    model: Model,
    pending: Sequence[Block],
    folder: Path,
    tick: Tick | None,
    engine: Engine | None,
) -> Generator[Receipt, None, None]:
    if engine is None or not serves(engine, plan):
        engine = engine_of(plan, model)
    if painter_of(engine) is not None:
        yield from render_abreast(
            lambda block, view, count: render_block(plan, block, view, engine, folder, count),
            pending,
            open_view=lambda: SourceView(plan.source),
            tick=tick,
        )
        return
    with SourceView(plan.source) as view:
        for block in pending:
            yield render_block(plan, block, view, engine, folder, tick)


def serves(engine: Engine, plan: Plan) -> bool:
    """Whether an open engine paints as planned; on a CPU whatever its batch, see `auto_batch`.

    What stands in for an engine, as that of `tilemapper serve`, knows itself where it paints.
    """
    if isinstance(engine, Engine) and engine.device != torch.device(plan.device):
        return False
    painted = (engine.model.card.digest, engine.precision, engine.tta, engine.compiled)
    if painted != (plan.model_digest, plan.precision, plan.tta, plan.compiled):
        return False
    return engine.device.type == "cpu" or engine.batch_size == plan.batch_size


def engine_of(plan: Plan, model: Model) -> Engine:
    """The engine that a plan asks for."""
    return Engine(
        model,
        device=plan.device,
        precision=plan.precision,
        batch_size=plan.batch_size,
        tta=plan.tta,
        compiled=plan.compiled,
    )


def render_block(
    plan: Plan,
    block: Block,
    view: View,
    engine: Engine,
    folder: Path,
    tick: Tick | None = None,
) -> Receipt:
    """A block from its window of the source to encoded file blocks on the disk.

    Reading runs in one thread and the generator in another; this one blends, encodes and writes.
    """
    begun = time.monotonic()
    tiles = [0]

    def counted(count: int) -> None:
        tiles[0] += count
        if tick is not None:
            tick(count)

    called = painter_of(engine) or engine
    fitted = called.fits
    seam = Seam(plan.colours.astype(np.int32) if plan.palette else None)
    with finished_rows(plan, block, view, engine, seam, counted, sums=False) as rows:
        receipt = stage_block(folder, plan, block, to_layers(rows, plan.colours, plan.wanted))
    return Receipt(
        **asdict(receipt)
        | {
            "tiles": tiles[0],
            "disagreement": (seam.squares, seam.count),
            "seconds": round(time.monotonic() - begun, 3),
            "batches": tuple(sorted({fitted, called.fits})) if tiles[0] else (),
        }
    )


@contextlib.contextmanager
def finished_rows(
    plan: Plan,
    block: Block,
    view: View,
    engine: Engine,
    seam: Seam,
    tick: Tick | None = None,
    *,
    sums: bool = True,
) -> Iterator[Iterator[PixelRows]]:
    """A block's pixels from top to bottom; reading and the generator run in threads meanwhile.

    Without ``sums`` a device may hand out pixels alone, unless one of the plan's layers needs more.
    """
    spread = "uncertainty" in plan.wanted
    squares = spread and not plan.palette
    painter = painter_of(engine)
    if painter is not None:
        with device_rows(
            plan.lattice,
            block,
            view,
            painter,
            mean=plan.source.fill,
            seam=seam,
            tick=tick,
            sums=sums or spread,
            squares=squares,
        ) as rows:
            yield rows
        return
    strips = read_tile_rows(view, plan.lattice, block, plan.source.fill)
    with (
        staged(strips, depth=2, name="read") as tile_rows,
        staged(predict_rows(tile_rows, engine, tick), depth=1, name="predict") as predicted,
    ):
        yield blend_rows(predicted, plan.lattice, block, seam, squares=squares, lent=True)
