"""What a run would do and cost: from the headers of a sample, and the pace of scenes done before.

Nothing is written, and no pixel of a scene is read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tilemapper.archive.decisions import ArchivePlan, Decision
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.owning import check_owner
from tilemapper.archive.planning import plan_archive
from tilemapper.archive.scene import Scene
from tilemapper.archive.units import size_of
from tilemapper.errors import TilemapperError
from tilemapper.networks.model import Model
from tilemapper.raster.gsd import output_size, pixel_size_m, wanted_steps
from tilemapper.raster.lattice import Lattice, overlap_for
from tilemapper.raster.opening import open_raster

SAMPLE = 200
_BYTES_A_BAND = 4 / 3  # of a pixel with its overviews, uncompressed


@dataclass(frozen=True)
class ArchiveEstimate:
    """A plan's cost. ``tiles`` and ``pixels`` are extrapolated from ``sampled`` headers.

    hours: at the pace of scenes done before, or of a batch measured now, on this machine alone.
    disk_bytes: outputs at the ratio of those done before, or uncompressed at the worst.
    """

    job: str
    scenes: int
    todo: int
    reasons: dict[str, int]
    held: int
    failed_before: int
    tiles: int
    pixels: int
    sampled: int
    hours: float
    disk_bytes: int
    examples: list[dict[str, str]]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


def estimate(
    job: ArchiveJob,
    model: Model,
    scenes: list[Scene],
    *,
    shard: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
) -> ArchiveEstimate:
    """What `run_archive` with the same arguments would do.

    Raises:
        JobError: two scenes would be written to one output, or the ledger is another job's.
    """
    job.render.check_model(model.card.name, has_classes=model.card.head == "palette")
    digest = model.card.digest
    with contextlib.ExitStack() as stack:
        ledger = Ledger.existing(job.work / "ledger.sqlite")
        if ledger is not None:
            check_owner(job, stack.enter_context(ledger))
        plan = plan_archive(
            job, scenes, ledger, model_digest=digest, shard=shard, retry_failed=retry_failed
        )
        pace = list(ledger.select("state='done' AND pixels > 0 LIMIT 2000")) if ledger else []
    tiles, pixels, sampled = _measure(job, model, plan.todo)
    seconds = sum(row["seconds"] for row in pace)
    known = sum(row["pixels"] for row in pace)
    worst = _BYTES_A_BAND * (3 + len(job.render.layers()))
    bytes_a_pixel = sum(row["output_bytes"] or 0 for row in pace) / known if known else worst
    return ArchiveEstimate(
        job=job.name,
        scenes=len(plan.decisions),
        todo=len(plan.todo),
        reasons=plan.reasons(),
        held=len(plan.held),
        failed_before=_failed_before(plan),
        tiles=tiles,
        pixels=pixels,
        sampled=sampled,
        hours=round(
            (pixels * seconds / known if known else _probed_s(job, model, tiles)) / 3600, 6
        ),
        disk_bytes=int(pixels * bytes_a_pixel),
        examples=[
            {"scene": d.scene.name, "reason": d.reason, "output": d.output} for d in plan.todo[:20]
        ],
    )


def _failed_before(plan: ArchivePlan) -> int:
    known = ("failed before", "cannot be rendered", "kills the run")
    return sum(d.reason in known for d in plan.decisions)


def _probed_s(job: ArchiveJob, model: Model, tiles: int) -> float:
    """Seconds for so many tiles, from one batch of random pixels: nothing was rendered before."""
    if not tiles:
        return 0.0
    from tilemapper.archive.engines import engine_for  # loads torch

    options = job.render.options()
    names = ("device", "precision", "batch_size", "tta", "compiled")
    engine = engine_for(model, **{name: options[name] for name in names})
    shape = (engine.batch_size, model.card.tile, model.card.tile, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    spent = []
    for _ in range(3):
        begun = time.perf_counter()
        engine.predict(noise)
        spent.append(time.perf_counter() - begun)
    return min(spent) * tiles / engine.batch_size


def _measure(job: ArchiveJob, model: Model, todo: Sequence[Decision]) -> tuple[int, int, int]:
    """Tiles and pixels of what is to be done, from an even sample of headers, and its size."""
    step = max(1, -(-len(todo) // SAMPLE))
    tiles = pixels = sampled = 0
    todo = [decision for decision in todo if decision.scene.part is None]
    tile = model.card.tile
    overlap = overlap_for(tile, job.render.options()["overlap"])
    for decision in todo[::step]:
        with contextlib.suppress(TilemapperError):
            height, width = _size(job, model, decision.scene)
            tiles += Lattice(height, width, overlap, tile).tile_count
            pixels += height * width
            sampled += 1
    share = len(todo) / sampled if sampled else 0.0
    return round(tiles * share), round(pixels * share), sampled


def _size(job: ArchiveJob, model: Model, scene: Scene) -> tuple[int, int]:
    """Height and width that a scene's output will have, ``render.bounds`` left out."""
    if scene.mosaic is not None:
        return size_of(job, scene.mosaic, model.card.gsd_m)
    path = scene.path
    with open_raster(path, allow_drivers=job.render.allow_driver) as src:
        size_m = pixel_size_m(src.transform, src.crs, src.height, src.width)
        steps = wanted_steps(path, size_m, job.render.gsd, model.card.gsd_m)
        if steps is None:
            return src.height, src.width
        return output_size(path, src.height, src.width, steps)
