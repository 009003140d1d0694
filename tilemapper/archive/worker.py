"""One scene from its source to a verified raster in staging: what a worker does, and tells."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tilemapper.archive.cutting import cut
from tilemapper.archive.mosaic import Part
from tilemapper.archive.place import place_of, placed
from tilemapper.archive.scenes import touches
from tilemapper.archive.secrets import redacted
from tilemapper.errors import LockedError, RasterError, TilemapperError, TryAgainError
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.opening import open_raster
from tilemapper.render.blockfile import file_sha256
from tilemapper.render.devices import choose_device, choose_precision, default_batch
from tilemapper.render.engine import Engine
from tilemapper.render.render import render

HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class SceneTask:
    """All that a worker needs. ``path`` may hold a signature: it is neither stored nor shown."""

    id: str
    path: str
    staged: str
    model: str
    options: dict[str, Any]
    bounds: tuple[float, float, float, float] | None = None
    min_px: int | None = None
    part: Part | None = None


@dataclass
class SceneOutcome:
    """What became of a scene: done, failed, skipped (by a filter), or later (not its fault)."""

    id: str
    state: str
    line: str | None = None
    stop: bool = False
    seconds: float = 0.0
    head_sha256: str | None = None
    sha256: str | None = None
    size_bytes: int = 0
    pixels: int = 0
    tiles: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class _Skip(Exception):
    """A filter of the job leaves the scene out."""


def render_scene(
    task: SceneTask, engine: Engine | None = None, tick: Callable[[int], None] | None = None
) -> SceneOutcome:
    """Renders a scene into staging; whatever is wrong with it comes back as an outcome.

    Called again with the same task after a kill, it goes on with the blocks that stand.
    """
    begun = time.monotonic()
    outcome = SceneOutcome(task.id, "done")
    try:
        _render(task, engine, tick, outcome)
    except _Skip as reason:
        outcome.state, outcome.line = "skipped", str(reason)
    except TryAgainError as error:
        outcome.state, outcome.line = "later", _line(error, task)
        outcome.stop = not isinstance(error, LockedError)
    except TilemapperError as error:
        outcome.state, outcome.line = "failed", _line(error, task)
    except Exception as error:  # a defect must not end the night's run either
        outcome.state = "failed"
        outcome.line = _line(f"{type(error).__name__}: {error}; report this as a defect", task)
    outcome.seconds = round(time.monotonic() - begun, 3)
    return outcome


def render_on_worker(task: SceneTask, threads: int | None = None) -> SceneOutcome:
    """`render_scene` in a process of a cluster, whose engine stays open from scene to scene."""
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    try:
        engine = None if task.part is not None else _engine(task.model, *_engine_options(task))
    except TryAgainError as error:
        return SceneOutcome(task.id, "later", _line(error, task), stop=True)
    except TilemapperError as error:
        return SceneOutcome(task.id, "failed", _line(error, task))
    return render_scene(task, engine)


def _engine_options(task: SceneTask) -> tuple[Any, ...]:
    names = ("device", "precision", "batch_size", "tta", "compiled")
    return tuple(task.options[name] for name in names)


@functools.lru_cache(maxsize=1)
def _engine(
    model: str, device: str, precision: str, batch_size: int | None, tta: bool, compiled: bool
) -> Engine:
    return engine_for(
        open_model(model), device=device, precision=precision, batch_size=batch_size, tta=tta,
        compiled=compiled,
    )  # fmt: skip


def engine_for(
    model: Model,
    *,
    device: str,
    precision: str,
    batch_size: int | None,
    tta: bool = False,
    compiled: bool = False,
) -> Engine:
    """The engine of all scenes: the same that each render would open for itself.

    Raises:
        ModelError, DeviceError: the model cannot be loaded, or not onto this device.
    """
    device = choose_device(device)
    return Engine(
        model,
        device=device,
        precision=choose_precision(precision, device, model),
        batch_size=batch_size or default_batch(device),
        tta=tta,
        compiled=compiled,
    )


def _line(error: object, task: SceneTask) -> str:
    return redacted(" ".join(str(error).split()), task.path)[:1000]


def _render(
    task: SceneTask,
    engine: Engine | None,
    tick: Callable[[int], None] | None,
    outcome: SceneOutcome,
) -> None:
    if task.part is not None:
        _cut(task, task.part, outcome)
        return
    before = _stamp(task.path)
    outcome.head_sha256 = head_sha256(task.path)
    if task.bounds is not None or task.min_px is not None:
        _filter(task)
    model = engine.model if engine is not None else task.model
    result = render(
        task.path, task.staged, model, overwrite=True, tick=tick, engine=engine, **task.options
    )
    if _stamp(task.path) != before:
        Path(task.staged).unlink(missing_ok=True)
        raise RasterError(f"{task.path}: changed while it was rendered; it is tried again")
    outcome.sha256 = file_sha256(Path(task.staged))
    outcome.size_bytes, outcome.tiles = result.output_bytes, result.tiles
    outcome.pixels = result.height * result.width
    outcome.facts = {
        "height": result.height,
        "width": result.width,
        "gsd_m": result.gsd_m,
        "overlap_disagreement": result.overlap_disagreement,
        "model": result.model,
        "notices": [redacted(notice, task.path) for notice in result.notices],
        "blocks_resumed": result.blocks_resumed,
        **asdict(place_of(Path(task.staged))),
    }


def _cut(task: SceneTask, part: Part, outcome: SceneOutcome) -> None:
    """A part of a mosaic's map, instead of a render."""
    staged = Path(task.staged)
    options = task.options
    if not cut(part, staged, driver=options["driver"], options=options["creation_options"]):
        raise _Skip("no pixel of the mosaic lies in it")
    with open_raster(task.staged) as src:
        height, width, tags = src.height, src.width, src.tags()
    outcome.sha256, outcome.size_bytes = file_sha256(staged), staged.stat().st_size
    outcome.pixels = height * width
    gsd = tags.get("TILEMAPPER_GSD", "unknown")
    outcome.facts = {
        "height": height,
        "width": width,
        "gsd_m": None if gsd == "unknown" else float(gsd),
        "overlap_disagreement": None,
        "model": tags.get("TILEMAPPER_MODEL"),
        "notices": [],
        "blocks_resumed": 0,
        **asdict(place_of(staged)),
    }


def _filter(task: SceneTask) -> None:
    """Filters that need the header.

    Raises:
        _Skip: one of them leaves the scene out.
    """
    allow = tuple(task.options.get("allow_drivers", ()))
    with open_raster(task.path, allow_drivers=allow) as src:
        if task.min_px is not None and min(src.height, src.width) < task.min_px:
            raise _Skip(f"{src.height} x {src.width} px, smaller than source.min_px {task.min_px}")
        if task.bounds is None:
            return
        place = placed(src.height, src.width, src.transform, src.crs)
    if place.bbox is None:
        raise _Skip("no place on Earth can be told, so source.bounds cannot be tested")
    if not touches(place.bbox, task.bounds):
        raise _Skip("lies outside of source.bounds")


def head_sha256(path: str) -> str | None:
    """sha256 of a local file's first 64 KiB; None of a remote one, whose ETag says more.

    Raises:
        RasterError: it cannot be read.
    """
    if "://" in path:
        return None
    try:
        with Path(path).open("rb") as file:
            return hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RasterError(
            f"{path}: cannot be read ({reason}); check the file and rights"
        ) from error


def _stamp(path: str) -> tuple[int, int] | None:
    if "://" in path:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116  paths here are strings all the way
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
