"""Engines that stay open from scene to scene: one for this process, one for each of a cluster's."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

import torch

from tilemapper.archive.stalling import Sign, left_if_stalled, line_of
from tilemapper.archive.task import SceneOutcome, SceneTask, one_line
from tilemapper.archive.worker import gpu_of, model_of, render_scene
from tilemapper.errors import DeviceError, DeviceLostError, TilemapperError, TryAgainError
from tilemapper.networks.model import Model
from tilemapper.render.cuda.painter import painter_of
from tilemapper.render.devices import (
    auto_batch,
    choose_device,
    choose_precision,
    has_begun,
    is_broken,
    is_gone,
    naming,
)
from tilemapper.render.engine import Engine
from tilemapper.render.nannies import UnfitError

_OPENING = threading.Lock()


def render_on_worker(task: SceneTask, threads: int | None = None) -> SceneOutcome:
    """`render_scene` in a process of a cluster, whose engine stays open from scene to scene.

    threads: of a worker of our own; None on other clusters.

    Raises:
        TryAgainError: the scene has stalled, and this process ends.
        UnfitError: it is one of our own workers, and its GPU is gone.
    """
    line = line_of(task, "its worker was given up; look at what it is read from, or at the device")
    return left_if_stalled(lambda sign: _render(task, threads, sign), task.stall_s, line)


def _render(task: SceneTask, threads: int | None, sign: Sign) -> SceneOutcome:
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    try:
        engine = None if task.part is not None else _engine_for(task)
    except DeviceError as error:
        # Our own workers, which alone are told of their threads, were given GPUs that there were.
        # On others it is the job that may name one that they do not have.
        own_gpu = threads is not None and task.options["device"].startswith("cuda")
        lost, gpu = isinstance(error, DeviceLostError), gpu_of(task)
        # A process under which its GPU has failed is started again, and finds it or does not.
        if own_gpu and not (lost and has_begun(gpu)) and is_gone(gpu):
            raise UnfitError(one_line(error, task), os.getpid()) from None
        if lost:
            _end_if_broken(gpu)
        return SceneOutcome(task.id, "failed", one_line(error, task))
    except TryAgainError as error:
        return SceneOutcome(task.id, "later", one_line(error, task), stop=True)
    except TilemapperError as error:
        return SceneOutcome(task.id, "failed", one_line(error, task))
    outcome = render_scene(task, engine, sign)
    if outcome.state != "done" and engine is not None:
        _end_if_broken(engine.device)
    return outcome


def _end_if_broken(device: str | torch.device) -> None:
    """Ends this process without an answer where its GPU has failed under it.

    The scene goes to another one. This one would fail all that came to it, one after the other, and
    faster than the others render theirs.
    """
    if is_broken(device):
        os._exit(1)


def _engine_for(task: SceneTask) -> Engine:
    """The engine of the task; scenes that come at once, as on a GPU, share one."""
    with _OPENING:
        engine = _engine(task.model, task.model_sha256, *_engine_options(task))
        painter_of(engine)  # before another scene is painted: see `Painter.prepare`
    return engine


def _engine_options(task: SceneTask) -> tuple[Any, ...]:
    names = ("device", "precision", "batch_size", "tta", "compiled")
    return tuple(task.options[name] for name in names)


@functools.lru_cache(maxsize=1)
def _engine(
    model: str,
    sha256: str,
    device: str,
    precision: str,
    batch_size: int | None,
    tta: bool,
    compiled: bool,
) -> Engine:
    """By the model's digest too: a cluster outlives models that are trained into one folder."""
    return engine_for(
        model_of(model, sha256), device=device, precision=precision, batch_size=batch_size, tta=tta,
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
    with naming(device):
        precision = choose_precision(precision, device, model)
        return Engine(
            model,
            device=device,
            precision=precision,
            batch_size=batch_size or auto_batch(device, model, precision),
            tta=tta,
            compiled=compiled,
        )
