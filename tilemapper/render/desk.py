"""Where a worker renders: engine and source stay open from one block to the next."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.errors import device_fault
from tilemapper.raster.lattice import Block
from tilemapper.raster.source import SourceView
from tilemapper.render.blocks import CACHE_MB, engine_of, render_block
from tilemapper.render.cuda.painter import painter_of
from tilemapper.render.devices import is_broken
from tilemapper.render.engine import Engine
from tilemapper.render.journal import Receipt
from tilemapper.render.plan import Plan
from tilemapper.render.workers import Files, Order, model_of

Beat = Callable[[int], None]

CUDA_AT_ONCE = 2  # blocks: as many as are out at a worker
COMPILE_S = 600  # longer than that, compiling counts as hung
LEAVE_S = 1.0  # of a process that ends: for its last error to get away
START_S = 120  # or a GPU's start: many workers at once load its libraries, and all of them lazily


class _Desk:
    """What a worker keeps between blocks: the last engine, and the last source. One for a process.

    Tasks may come in several threads. On a CPU they take turns, on a GPU two are at it at once:
    while one block is encoded, the next is painted. Each has a file handle of its own.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._opening = threading.Lock()
        self._at_it: list[Any] = []  # the keys of the engines in use
        self._engine: tuple[Any, Engine] | None = None
        self._idle: list[tuple[Any, SourceView]] = []

    @contextlib.contextmanager
    def open(self, order: Order, beat: Beat) -> Iterator[tuple[Engine, SourceView]]:
        """Engine and source of an order; ``beat`` is called at each step of opening them."""
        key = _engine_key(order.plan)
        with self._turn:
            self._turn.wait_for(lambda: self._admits(key))
            self._at_it.append(key)
        view: SourceView | None = None
        try:
            beat(0)
            with self._opening:
                engine, view = self._engine_of(order, beat), self._view_of(order, beat)
            yield engine, view
        except BaseException:
            # After an error neither is trusted.
            self._engine = None
            if view is not None:
                view.close()
            raise
        else:
            with self._opening:
                self._idle.append((order.key, view))
        finally:
            with self._turn:
                self._at_it.remove(key)
                self._turn.notify_all()

    def _admits(self, key: Any) -> bool:
        on_cuda = key[1].startswith("cuda")
        return len(self._at_it) < (CUDA_AT_ONCE if on_cuda else 1) and set(self._at_it) <= {key}

    def _engine_of(self, order: Order, beat: Beat) -> Engine:
        plan, key = order.plan, _engine_key(order.plan)
        if self._engine is None or self._engine[0] != key:
            self._engine = None
            if order.threads:
                torch.set_num_threads(order.threads)
            with _beating(beat, _patience_s(plan)):
                engine = engine_of(plan, model_of(order))
                painter_of(engine)  # made here: the first block would do it without a sign of life
            self._engine = key, engine
            beat(0)
        return self._engine[1]

    def _view_of(self, order: Order, beat: Beat) -> SourceView:
        """A view of the order's source; with ``_opening`` held, as for handing one back."""
        for entry in list(self._idle):
            self._idle.remove(entry)
            if entry[0] == order.key:
                return entry[1]
            entry[1].close()
        os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
        view = SourceView(order.plan.source)
        beat(0)
        return view


def _patience_s(plan: Plan) -> float:
    """How long opening an engine may take on top of what a quiet worker is waited for."""
    if plan.compiled:
        return COMPILE_S
    return START_S if plan.device.startswith("cuda") else 0


def _engine_key(plan: Plan) -> tuple[str, str, str, int, bool, bool]:
    """What an open engine belongs to."""
    how = (plan.device, plan.precision, plan.batch_size, plan.tta, plan.compiled)
    return (plan.model_digest, *how)


_DESK = _Desk()
_ENDING = threading.Event()  # its GPU has failed, and this process is about to end


@contextlib.contextmanager
def _beating(beat: Beat, at_most_s: float) -> Iterator[None]:
    """Gives signs of life meanwhile: compiling takes minutes, and has no steps to tell of."""
    done = threading.Event()

    def keep() -> None:
        with contextlib.suppress(Exception):  # unwanted: the next step will say so too
            for _ in range(int(at_most_s)):
                if done.wait(1.0):
                    return
                beat(0)

    thread = threading.Thread(target=keep, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _BeatingView:
    """A source that says with every read that it is alive: masked parts have no tiles to count."""

    def __init__(self, view: SourceView, beat: Beat) -> None:
        self._view, self._beat = view, beat

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        self._beat(0)
        return self._view.read(row=row, col=col, height=height, width=width)

    def wanted(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.bool_] | None:
        return self._view.wanted(row=row, col=col, height=height, width=width)


def render_here(
    order: Order, block: Block, beat: Beat, *, carry: bool, scratch: Path | None = None
) -> tuple[Receipt, Files]:
    """Renders a block in this process.

    Args:
        order: of which render.
        block: which part of it.
        beat: called with the number of tiles done since the last call, 0 as a sign of life.
        carry: the client's folder is not here: the block's files are returned.
        scratch: where they are written on the way; the system's temporary folder if None.

    Returns:
        The receipt, and the files of the block's folder if ``carry``, else none.
    """
    if _ENDING.is_set():
        # It would fail here at once, time after time. It is given to another worker, or to this
        # one when it is back, as soon as the process is gone.
        time.sleep(2 * LEAVE_S)
    try:
        with _DESK.open(order, beat) as (engine, view):
            beating = _BeatingView(view, beat)
            if not carry:
                receipt = render_block(order.plan, block, beating, engine, order.folder, beat)
                return receipt, {}
            if scratch is not None:
                scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                receipt = render_block(order.plan, block, beating, engine, Path(folder), beat)
                parts = (Path(folder) / block.name).iterdir()
                return receipt, {path.name: path.read_bytes() for path in parts}
    except RuntimeError as error:
        fault = device_fault(error, order.plan.device)
        if is_broken(order.plan.device):
            # A broken CUDA context never heals: this process ends once its error has been sent.
            # With one that works it stays, for what others may keep in it.
            _ENDING.set()
            threading.Timer(LEAVE_S, os._exit, (1,)).start()
        if fault is None:
            raise
        raise fault from error
