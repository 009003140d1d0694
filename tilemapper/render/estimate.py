"""What a render would cost, before it is run: tiles, blocks, memory, disk, time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rasterio

from tilemapper.networks.model import DEFAULT_MODEL, Model, open_model
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.division import named_gpus
from tilemapper.render.plan import Plan
from tilemapper.render.planning import plan_render
from tilemapper.render.speed import tiles_a_second
from tilemapper.render.staging import check_stored, staging_folder, stored_plan
from tilemapper.render.targets import check_target, check_targets


@dataclass(frozen=True)
class Estimate:
    """A plan's cost. ``tiles`` counts every tile as valid; masked ones will not be run.

    ``memory_bytes`` is what each of the ``workers`` needs.
    """

    target: str
    width: int
    height: int
    gsd_m: float | None
    model: str
    device: str
    workers: int
    precision: str
    batch_size: int
    overlap: int
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
        each = " a worker" if self.workers > 1 else ""
        return [
            *self.notices,
            f"output   {self.target}: {self.width} x {self.height} px, {gsd} a pixel",
            f"model    {self.model} on {self.device}, {self.precision}, batch {self.batch_size}",
            f"tiles    {self.tiles} in {self.blocks} block(s) of {self.block} px "
            f"(+{self.redundant_share:.1%} at block borders), overlap {self.overlap} px",
            f"memory   {self.memory_bytes / 2**20:.0f} MiB{each} beyond the model",
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

    ``dashboard`` changes nothing here. Raises what `tilemapper.render` raises before
    the first tile.
    """
    target = Path(target)
    stored = stored_plan(target)
    check_target(str(source), target, overwrite=overwrite or stored is not None)
    opened = model if isinstance(model, Model) else open_model(model)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
        plan = plan_render(source, target, opened, restart=restart, **options)
        check_targets(plan, overwrite=overwrite)
        if stored is not None and not restart:
            check_stored(staging_folder(target), stored, plan)
    scheduler, insecure = options.get("scheduler"), bool(options.get("insecure"))
    rate = _speed(plan, opened, scheduler, insecure=insecure)
    return Estimate(
        target=str(target),
        width=plan.source.width,
        height=plan.source.height,
        gsd_m=plan.source.gsd_m,
        model=plan.model_name,
        device=plan.device,
        workers=max(1, plan.workers),
        precision=plan.precision,
        batch_size=plan.batch_size,
        overlap=plan.overlap,
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


def _speed(plan: Plan, model: Model, scheduler: str | None, *, insecure: bool) -> float:
    """Tiles a second of all devices together; one of them is measured."""
    if scheduler is not None:
        from tilemapper.render.cluster import cluster_speed  # loads dask

        return cluster_speed(scheduler, plan, model, insecure=insecure)
    # Workers on a CPU share its cores, those on GPUs the GPUs; each needs a block to be at.
    gpus = len(named_gpus(plan.devices)) if plan.device.startswith("cuda") else 1
    return tiles_a_second(plan, model) * max(1, min(plan.workers, gpus, len(plan.blocks)))
