"""One scene from its source to a verified raster in staging: what a worker does, and tells."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tilemapper.archive.cutting import cut
from tilemapper.archive.part import Part
from tilemapper.archive.place import place_of, placed
from tilemapper.archive.task import TIME_IS_UP, SceneOutcome, SceneTask, StagedFile, one_line
from tilemapper.errors import (
    DeviceLostError,
    LockedError,
    ModelError,
    OtherPlanError,
    RasterError,
    ServerError,
    TilemapperError,
    TryAgainError,
    interruption_behind,
    shortage,
)
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.dateline import touches
from tilemapper.raster.opening import forget, open_raster
from tilemapper.raster.secrets import redacted
from tilemapper.render.blockfile import file_sha256
from tilemapper.render.devices import is_broken
from tilemapper.render.engine import Engine
from tilemapper.render.render import render

HEAD_BYTES = 64 * 1024


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
    except TilemapperError as error:
        outcome.state, outcome.line = "failed", one_line(error, task)
        if isinstance(error, ServerError):
            outcome.state, outcome.away = "later", True
        elif _is_for_later(error, task, engine):
            outcome.state, outcome.stop = "later", not isinstance(error, LockedError)
    except Exception as error:  # a defect must not end the night's run either
        interrupted = interruption_behind(error)
        if interrupted is not None:  # no fault of the scene
            raise interrupted from None
        known = shortage(error)
        said = known or f"{type(error).__name__}: {error}; report this as a defect"
        outcome.state, outcome.line = "failed", one_line(said, task)
        if isinstance(known, TryAgainError):
            outcome.state, outcome.stop = "later", True
    if outcome.state in ("failed", "skipped"):
        outcome.facts = _place_all_the_same(task)
    outcome.seconds = round(time.monotonic() - begun, 3)
    return outcome


def _is_for_later(error: TilemapperError, task: SceneTask, engine: Engine | None) -> bool:
    """Whether the scene is not at fault, and another run may fare better with it.

    With an error of a GPU that goes on working it would end that run too, before all the others.
    """
    if isinstance(error, DeviceLostError):
        return is_broken(gpu_of(task) if engine is None else engine.device)
    return isinstance(error, TryAgainError)


def gpu_of(task: SceneTask) -> str:
    """The GPU that a scene is rendered on, if it is on one; of a list the first."""
    kind, _, numbers = task.options["device"].partition(":")
    return f"cuda:{numbers.partition(',')[0]}" if kind == "cuda" and numbers else "cuda"


def _place_all_the_same(task: SceneTask) -> dict[str, Any]:
    """Where a scene lies that was not rendered, for maps of failures; nothing if none can tell."""
    with contextlib.suppress(Exception):
        place = place_of(task.path, task.options.get("allow_drivers", ()))
        if place.ring is not None:
            return {"ring": place.ring, "bbox": place.bbox}
    return {}


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
    model = engine.model if engine is not None else model_of(task.model, task.model_sha256)
    options = {**task.options, **task.layers, "tick": _ticking(task, tick)}
    rendered = functools.partial(
        render, task.path, task.staged, model, overwrite=True, engine=engine, **options
    )
    try:
        result = rendered()
    except OtherPlanError:  # as of a machine with another device: nobody can say --restart here
        result = rendered(restart=True)
    if _stamp(task.path) != before:
        for path in (task.staged, *task.layers.values()):
            Path(path).unlink(missing_ok=True)
        raise RasterError(f"{task.path}: changed while it was rendered; it is tried again")
    outcome.files, outcome.tiles = _staged(task), result.tiles
    outcome.pixels = result.height * result.width
    outcome.facts = {
        "height": result.height,
        "width": result.width,
        "gsd_m": result.gsd_m,
        "overlap_disagreement": result.overlap_disagreement,
        "model": result.model,
        "notices": [redacted(notice, task.path) for notice in result.notices],
        "blocks_resumed": result.blocks_resumed,
        **asdict(place_of(task.staged)),
    }


def model_of(folder: str, sha256: str) -> Model:
    """The model that a run began with; not another that stands in its place by now, or here.

    Raises:
        ModelError: there is none, or it is another.
    """
    model = open_model(folder)
    if model.card.digest != sha256:
        raise ModelError(
            f"{folder}: is another model than the run began with; put the same one on all "
            "machines, and run the same command again"
        )
    return model


def _ticking(task: SceneTask, tick: Callable[[int], None] | None) -> Callable[[int], None]:
    """A tick that ends the scene when the run's time is up; its finished blocks are kept."""

    def ticked(tiles: int) -> None:
        if task.until_s is not None and time.time() > task.until_s:
            raise TryAgainError(TIME_IS_UP)
        if tick is not None:
            tick(tiles)

    return ticked


def _staged(task: SceneTask) -> dict[str, StagedFile]:
    paths = {name: Path(path) for name, path in {"map": task.staged, **task.layers}.items()}
    return {
        name: StagedFile(path, file_sha256(path), path.stat().st_size)
        for name, path in paths.items()
    }


def _cut(task: SceneTask, part: Part, outcome: SceneOutcome) -> None:
    """A part of a mosaic's map, instead of a render."""
    driver, options = task.options["driver"], task.options["creation_options"]
    for name, path in {"map": task.staged, **task.layers}.items():
        if not cut(part, Path(path), layer=name, driver=driver, options=options):
            raise _Skip("no pixel of the mosaic lies in it")
    with open_raster(task.staged) as src:
        height, width, tags = src.height, src.width, src.tags()
    outcome.files = _staged(task)
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
        **asdict(place_of(task.staged)),
    }


def _filter(task: SceneTask) -> None:
    """Filters that need the header.

    Raises:
        _Skip: one of them leaves the scene out.
    """
    allow = tuple(task.options.get("allow_drivers", ()))
    forget(task.path)
    with open_raster(task.path, allow_drivers=allow) as src:
        if task.min_px is not None and min(src.height, src.width) < task.min_px:
            raise _Skip(f"{src.width} x {src.height} px, smaller than source.min_px {task.min_px}")
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
        RasterError: it cannot be read. ShortageError: there are too many open files.
    """
    if "://" in path:
        return None
    try:
        with Path(path).open("rb") as file:
            return hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise shortage(error) or RasterError(
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
