"""What a worker of a cluster does: look around, take a model, render a block.

Nothing here knows how orders arrive: `tilemapper.render.cluster` brings them. A process renders
one block at a time and keeps its engine and its source open from one block to the next.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.errors import DeviceError, ModelError, RasterError, StagingError, TilemapperError
from tilemapper.networks.card import CARD_NAME
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.atomic import fsync_folder, writing_failed
from tilemapper.raster.lattice import Block
from tilemapper.raster.source import SourceView
from tilemapper.render.engine import Engine, choose_device
from tilemapper.render.plan import Plan
from tilemapper.render.render import CACHE_MB, engine_of, render_block
from tilemapper.render.staging import Receipt, file_sha256, publish

# What must be the same on all machines for the same bytes.
PACKAGES = ("tilemapper", "torch", "numpy", "rasterio", "distributed")

Beat = Callable[[int], None]
Files = dict[str, bytes]


@dataclass(frozen=True)
class Order:
    """What a worker must know of a render; the same for all its blocks.

    Attributes:
        plan, model: as the client has them; the model's folder may be missing on the worker.
        folder: the client's folder of finished blocks; it may be missing as well.
        probe: name of a file in ``folder``, and what is written in it.
        versions: the client's, of `PACKAGES`.
        threads: of torch in this process; None leaves them as they are.
    """

    plan: Plan
    model: Model
    folder: Path
    probe: tuple[str, str]
    versions: Mapping[str, str]
    threads: int | None = None

    @cached_property
    def key(self) -> tuple[str, str, int]:
        """What an open source belongs to."""
        return self.plan.fingerprint, self.plan.source.path, self.plan.batch_size


@dataclass(frozen=True)
class Look:
    """What a worker found when it looked around: what does not fit, and what it has."""

    faults: tuple[str, ...]
    shares_folder: bool
    holds_model: bool


def versions() -> dict[str, str]:
    """The versions of `PACKAGES` here."""
    return {name: version(name) for name in PACKAGES}


def examine(order: Order) -> Look:
    """Compares this worker with what the client has; raises nothing that a user could cause."""
    here = versions()
    faults = [
        f"has {name} {here[name]}, the client has {wanted}"
        for name, wanted in order.versions.items()
        if here[name] != wanted
    ]
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
    try:
        choose_device(order.plan.device)
        SourceView(order.plan.source).close()
    except (DeviceError, RasterError) as error:
        faults.append(f"cannot take part: {error}")
    model = None
    with contextlib.suppress(TilemapperError):
        model = _model_of(order)
    return Look(tuple(faults), _shares_folder(order), model is not None)


def _shares_folder(order: Order) -> bool:
    """Whether the client's folder is here as well, and may be written."""
    name, text = order.probe
    trial = order.folder / f".trial.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        if (order.folder / name).read_text() != text:
            return False
        trial.mkdir()
        trial.rmdir()
    except (OSError, UnicodeDecodeError):
        return False
    return True


# The models that were sent to this process, in folders under its scratch folder.
_SENT: dict[str, Model] = {}


def model_files(model: Model) -> Files:
    """The files that a worker needs of a model."""
    names = [CARD_NAME, *([model.card.weights] if model.card.weights else [])]
    return {name: (model.folder / name).read_bytes() for name in names}


def take_model(digest: str, files: Files, scratch: Path) -> None:
    """Keeps a model that the client sent, under its digest.

    Raises:
        ModelError: the card that came is of another model.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="model-", dir=scratch))
    for name, data in files.items():
        (folder / Path(name).name).write_bytes(data)
    model = open_model(folder)
    if model.card.digest != digest:
        raise ModelError(f"{folder}: another model arrived than was sent; run again")
    _SENT[digest] = model


def _model_of(order: Order) -> Model:
    digest = order.plan.model_digest
    if digest in _SENT:
        return _SENT[digest]
    model = open_model(order.model.folder)
    if model.card.digest != digest:
        raise ModelError(f"{model.folder}: another model stands there; send the right one")
    if model.card.weights and not (model.folder / model.card.weights).is_file():
        raise ModelError(f"{model.folder}: the weights are missing; send the model")
    return model


class _Desk:
    """What a worker keeps between blocks: the last engine and the last source. One for a process.

    Tasks may come in several threads, but a device and a file handle serve one at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: tuple[Any, Engine] | None = None
        self._view: tuple[Any, SourceView] | None = None

    @contextlib.contextmanager
    def open(self, order: Order, beat: Beat) -> Iterator[tuple[Engine, SourceView]]:
        """Engine and source of an order; ``beat`` is called at each step of opening them."""
        with self._lock:
            beat(0)
            try:
                yield self._engine_of(order, beat), self._view_of(order, beat)
            except BaseException:
                self.clear()
                raise

    def _engine_of(self, order: Order, beat: Beat) -> Engine:
        plan = order.plan
        key = (plan.model_digest, plan.device, plan.precision, plan.batch_size)
        if self._engine is None or self._engine[0] != key:
            self._engine = None
            if order.threads:
                torch.set_num_threads(order.threads)
            self._engine = key, engine_of(plan, _model_of(order))
            beat(0)
        return self._engine[1]

    def _view_of(self, order: Order, beat: Beat) -> SourceView:
        if self._view is None or self._view[0] != order.key:
            self._close_view()
            os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
            self._view = order.key, SourceView(order.plan.source)
            beat(0)
        return self._view[1]

    def _close_view(self) -> None:
        if self._view is not None:
            self._view[1].close()
            self._view = None

    def clear(self) -> None:
        """Drops both: after an error neither is trusted."""
        self._close_view()
        self._engine = None


_DESK = _Desk()


class _BeatingView:
    """A source that says with every read that it is alive: masked regions have no tiles to count."""

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
        if "CUDA error" in str(error):
            # A broken CUDA context never heals: this process ends once its error has been sent.
            threading.Timer(1.0, os._exit, (1,)).start()
        raise


def stage_files(folder: Path, receipt: Receipt, files: Files) -> None:
    """Puts a block that travelled into the folder of finished blocks, whole or not at all.

    Raises:
        StagingError: what arrived is not what the receipt says.
        DiskFullError, TargetError: the folder cannot be written.
    """
    part = folder / f".{receipt.block}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        part.mkdir()
        for name in receipt.files:
            with (part / name).open("xb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
            if file_sha256(part / name) != receipt.files[name]:
                raise StagingError(f"{folder}: block {receipt.block} arrived damaged; run again")
        fsync_folder(part)
        publish(part, folder / receipt.block)
    except OSError as error:
        if isinstance(error, TilemapperError):
            raise
        raise writing_failed(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
