"""What runs on a worker: looking around, taking the model, rendering a block."""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import get_worker

from tilemapper.errors import ModelError, TilemapperError
from tilemapper.raster.lattice import Block
from tilemapper.render.desk import render_here
from tilemapper.render.devices import auto_batch, choose_device, choose_precision
from tilemapper.render.journal import Receipt
from tilemapper.render.messenger import Tasks
from tilemapper.render.speed import tiles_a_second
from tilemapper.render.workers import Files, Look, Order, examine, misfits, model_of, take_model

BEAT_S = 0.5  # between two signs of life of a worker
FETCH_S = 30.0  # for a finished block until it is fetched, and for its bytes on a slow line:
SLOWEST = 1 << 18  # bytes a second; one that takes longer does not arrive at all


@functools.lru_cache(maxsize=2)
def _order(payload: bytes) -> Order:
    """The order, unpacked once for all blocks."""
    order: Order = pickle.loads(payload)
    if order.threads is None and not order.plan.device.startswith("cuda"):
        # Nannies set OMP_NUM_THREADS=1; the threads that the worker was given are the cores meant.
        order = replace(order, threads=get_worker().state.nthreads)
    return order


def _scratch() -> Path:
    return Path(get_worker().local_directory) / "tilemapper"


def _examine(payload: bytes, _loaded: Any) -> Look:
    return examine(_order(payload))


def misfits_here(wanted: dict[str, str], _loaded: Any) -> list[str]:
    """Which of the client's versions are others on this worker."""
    return misfits(wanted)


def _take_model(payload: bytes, files: bytes) -> Look:
    order = _order(payload)
    take_model(order.plan.model_digest, pickle.loads(files), _scratch())
    return examine(order)


@dataclass(frozen=True)
class Facilities:
    """What a worker computes on: its device, the model's precision there, the batch that fits."""

    device: str
    precision: str
    batch_size: int


def facilities(kind: str, model: bytes, _loaded: Any = None) -> Facilities:
    """This worker's, for a kind of device and a pickled model, whose weights may be elsewhere."""
    device, opened = choose_device(kind), pickle.loads(model)
    precision = choose_precision("auto", device, opened)
    return Facilities(device, precision, auto_batch(device, opened, precision))


def probe(payload: bytes, files: bytes | None, _loaded: Any = None) -> float | None:
    """Tiles a second of an order's model here; None if the model must be sent first."""
    order = _order(payload)
    if files is not None:
        take_model(order.plan.model_digest, pickle.loads(files), _scratch())
    try:
        model = model_of(order)
    except ModelError:
        if files is not None:
            raise
        return None
    return tiles_a_second(order.plan, model)


class _UnwantedError(Exception):
    """The client has gone, or does not want this block from this worker any more."""


def _render(
    payload: bytes, block: Block, ticket: str, topic: str, carry: bool
) -> tuple[Receipt, Files]:
    """Renders a block, and says now and then how far it is."""
    worker = get_worker()
    key = worker.get_current_task()
    total, said_s = 0, -BEAT_S

    def beat(tiles: int) -> None:
        nonlocal total, said_s
        total += tiles
        now = time.monotonic()
        if now - said_s < BEAT_S:
            return
        said_s = now
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise _UnwantedError(ticket)
        worker.log_event(topic, {"ticket": ticket, "tiles": total})

    try:
        receipt, files = render_here(_order(payload), block, beat, carry=carry, scratch=_scratch())
    except TilemapperError as error:
        failure = type(error)(str(error))
        failure.add_note("".join(traceback.format_exception(error)))
    else:
        if files:
            _beat_on_the_way(beat, sum(map(len, files.values())))
        return receipt, files
    # Raised out here it has no cause: GDAL's errors cannot be unpacked where they arrive.
    raise failure


def _beat_on_the_way(beat: Callable[[int], None], size: int) -> None:
    """Gives signs of life while ``size`` bytes travel, which else would pass for a hung worker."""

    def keep() -> None:
        deadline = time.monotonic() + FETCH_S + size / SLOWEST
        with contextlib.suppress(Exception):  # the block has arrived, or the worker closes
            while time.monotonic() < deadline:
                time.sleep(BEAT_S)
                beat(0)

    threading.Thread(target=keep, name="on-the-way", daemon=True).start()


TASKS = Tasks(__name__, _examine, _take_model, _render)
