"""What a render would cost, before it is run: tiles, blocks, memory, disk, time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from tilemapper.networks.model import DEFAULT_MODEL, Model, open_model
from tilemapper.render.plan import Plan
from tilemapper.render.planning import plan_render
from tilemapper.render.render import CACHE_MB, engine_of
from tilemapper.render.targets import check_target

PROBES = 3


@dataclass(frozen=True)
class Estimate:
    """A plan's cost. ``tiles`` counts every tile as valid; masked ones will not be run."""

    target: str
    width: int
    height: int
    gsd_m: float | None
    model: str
    device: str
    precision: str
    batch_size: int
    tiles: int
    blocks: int
    block: int
    redundant_share: float
    memory_bytes: int
    disk_bytes: int
    tiles_s: float
    seconds: float
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same in words."""
        gsd = "unknown" if self.gsd_m is None else f"{self.gsd_m:.3g} m"
        return [
            *self.notices,
            f"output   {self.target}: {self.width} x {self.height} px, {gsd} a pixel",
            f"model    {self.model} on {self.device}, {self.precision}, batch {self.batch_size}",
            f"tiles    {self.tiles} in {self.blocks} block(s) of {self.block} px "
            f"(+{self.redundant_share:.1%} at block borders)",
            f"memory   {self.memory_bytes / 2**20:.0f} MiB beyond the model",
            f"disk     {self.disk_bytes / 1e6:.1f} MB at most, staging and output together",
            f"time     {self.seconds:.0f} s at {self.tiles_s:.1f} tiles/s, measured on one batch",
        ]


def estimate(
    source: str | Path,
    target: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    overwrite: bool = False,
    restart: bool = False,
    dashboard: bool = False,
    **options: Any,
) -> Estimate:
    """The plan of `tilemapper.render` with the same arguments, and a short probe of its speed.

    ``restart`` and ``dashboard`` change nothing here. Raises what `tilemapper.render` raises before
    the first tile.
    """
    target = Path(target)
    check_target(str(source), target, overwrite=overwrite)
    opened = model if isinstance(model, Model) else open_model(model)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
        plan = plan_render(source, target, opened, **options)
    rate = _probe(plan, opened)
    return Estimate(
        target=str(target),
        width=plan.source.width,
        height=plan.source.height,
        gsd_m=plan.source.gsd_m,
        model=plan.model_name,
        device=plan.device,
        precision=plan.precision,
        batch_size=plan.batch_size,
        tiles=plan.tile_count,
        blocks=len(plan.blocks),
        block=plan.block,
        redundant_share=plan.redundant_share,
        memory_bytes=plan.memory_bytes(),
        disk_bytes=plan.disk_bytes(),
        tiles_s=rate,
        seconds=plan.tile_count / rate,
        notices=plan.source.notices,
    )


def _probe(plan: Plan, model: Model) -> float:
    """Tiles a second of the generator on random pixels: the fastest of a few batches."""
    engine = engine_of(plan, model)
    shape = (plan.batch_size, plan.tile, plan.tile, 3)
    tiles = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    seconds = []
    with ThreadPoolExecutor(engine.lanes, initializer=engine.enter_lane) as pool:
        for _ in range(PROBES):
            begun = time.perf_counter()
            list(pool.map(engine.predict, [tiles] * engine.lanes))
            seconds.append(time.perf_counter() - begun)
    # The first batch also warms up.
    return engine.lanes * plan.batch_size / min(seconds[1:])
