"""The whole path on one screen: source view, plan, blocks, staging, journal, finish."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rasterio

from tilemapper.networks.model import DEFAULT_MODEL, Model, open_model
from tilemapper.render.blocks import CACHE_MB, Tick, render_blocks
from tilemapper.render.engine import Engine
from tilemapper.render.finish import finish
from tilemapper.render.outcome import RenderResult, disagreement, out_of_memory, output_tags
from tilemapper.render.plan import Plan
from tilemapper.render.planning import plan_render
from tilemapper.render.staging import locked, open_staging, stored_plan
from tilemapper.render.targets import all_finished, check_disk, check_target, check_targets


def render(
    source: str | Path,
    target: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    overwrite: bool = False,
    restart: bool = False,
    on_plan: Callable[[Plan, int], None] | None = None,
    tick: Tick | None = None,
    engine: Engine | None = None,
    scheduler: str | None = None,
    dashboard: bool = False,
    insecure: bool = False,
    **options: Any,
) -> RenderResult:
    """Renders a raster of any size as a map raster; called again after a kill, it goes on.

    Args:
        source: raster to read; see `tilemapper.raster.source`.
        target: raster to write; appears complete, or not at all.
        model: an opened model, its folder, or its name.
        overwrite: replace an existing target, at the end and in one step.
        restart: throw away the blocks of an unfinished render with other options.
        on_plan: called with the plan and the number of tiles still to run, before the first.
        tick: called with the number of tiles done since the last call; 0 as a sign of life.
        engine: the model on its device already, for many small rasters; opened if None, or if it
            would not paint as planned.
        scheduler: a running dask cluster; see `tilemapper.render.address.scheduler_address`.
        dashboard: show dask's dashboard, on the loopback interface, if workers are started here.
        insecure: take a scheduler on another machine without TLS.
        **options: see `plan_render`.

    Raises:
        TilemapperError: one of its kinds, with a line that says what to do.
    """
    begun = time.monotonic()
    target = Path(target)
    check_target(str(source), target, overwrite=overwrite or stored_plan(target) is not None)
    opened = model if isinstance(model, Model) else open_model(model)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):  # rasterio counts bytes
        plan = plan_render(
            source,
            target,
            opened,
            scheduler=scheduler,
            insecure=insecure,
            restart=restart,
            open_batch=None if engine is None else engine.batch_size,
            **options,
        )
        check_targets(plan, overwrite=overwrite)
        with locked(target) as folder, contextlib.ExitStack() as beside:
            for layer in plan.layers[1:]:
                beside.enter_context(locked(Path(layer.target)))
            # Another run may have ended since: hours of work would be refused at their end.
            check_targets(plan, overwrite=overwrite)
            # All stands already where a run was killed while it tidied up.
            stands = not restart and all_finished(plan)
            staging = open_staging(folder, plan, restart=restart)
            pending = [b for b in plan.blocks if not stands and b.name not in staging.done]
            if not stands:
                check_disk(plan, target, pending)
            resumed = len(plan.blocks) - len(pending)
            if on_plan is not None:
                on_plan(plan, sum(plan.lattice.tiles_of(block) for block in pending))
            tiles = 0
            work = (plan, opened, pending, staging.blocks, tick)
            if scheduler or (plan.workers and len(pending) > 1):
                from tilemapper.render.cluster import spread_blocks  # loads dask

                done = spread_blocks(
                    *work,
                    workers=plan.workers,
                    scheduler=scheduler,
                    dashboard=dashboard,
                    insecure=insecure,
                )
            else:
                done = render_blocks(*work, engine)
            with contextlib.closing(done) as receipts:
                for receipt in receipts:
                    staging.append(receipt)
                    tiles += receipt.tiles
                    if tick is not None:
                        tick(0)  # a sign of life: masked blocks have no tiles
            if not stands:
                staging.check_source()
                check_targets(plan, overwrite=overwrite)  # hours may have passed
                finish(staging, output_tags(plan, staging))
                staging.note_finished()
            beside.close()  # first: what a kill leaves of them, the same command clears away
            staging.remove()
    unlike = out_of_memory(staging)
    if unlike is not None:
        warnings.warn(unlike, RuntimeWarning, stacklevel=2)
    return RenderResult(
        target=str(target),
        height=plan.source.height,
        width=plan.source.width,
        tiles=tiles,
        blocks=len(plan.blocks),
        block=plan.block,
        blocks_resumed=resumed,
        seconds=round(time.monotonic() - begun, 3),
        output_bytes=target.stat().st_size,
        model=plan.model_name,
        gsd_m=plan.source.gsd_m,
        overlap_disagreement=disagreement(staging),
        notices=[*plan.source.notices, *([] if unlike is None else [unlike])],
        source=plan.source,
    )
