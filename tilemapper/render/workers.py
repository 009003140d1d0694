"""What client and workers of a cluster agree on: the order, whether all fits, what travels."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from tilemapper import __version__
from tilemapper.errors import DeviceError, ModelError, RasterError, StagingError, TilemapperError
from tilemapper.networks.card import CARD_NAME
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.atomic import fsync_folder, writing_failed
from tilemapper.raster.opening import forget
from tilemapper.raster.source import SourceView
from tilemapper.render.blockfile import file_sha256, publish
from tilemapper.render.blocks import CACHE_MB
from tilemapper.render.devices import choose_device
from tilemapper.render.journal import Receipt
from tilemapper.render.plan import Plan

# What must be the same on all machines for the same bytes.
PACKAGES = ("tilemapper", "torch", "numpy", "rasterio", "distributed")

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
    # The package itself may run from its sources, without having been installed.
    return {"tilemapper": __version__} | {name: version(name) for name in PACKAGES[1:]}


def misfits(wanted: Mapping[str, str]) -> list[str]:
    """Which of the client's versions are others here, in words."""
    here = versions()
    return [
        f"has {name} {here[name]}, the client has {theirs}"
        for name, theirs in wanted.items()
        if here[name] != theirs
    ]


def examine(order: Order) -> Look:
    """Compares this worker with what the client has; raises nothing that a user could cause."""
    faults = misfits(order.versions)
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_MB))
    try:
        choose_device(order.plan.device)
        forget(order.plan.source.path)
        SourceView(order.plan.source).close()
    except (DeviceError, RasterError) as error:
        faults.append(f"cannot take part: {error}")
    model = None
    with contextlib.suppress(TilemapperError):
        model = model_of(order)
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
    return {name: (model.folder / name).read_bytes() for name in _names(model)}


def _names(model: Model) -> list[str]:
    return [CARD_NAME, *([model.card.weights] if model.card.weights else [])]


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


def model_of(order: Order) -> Model:
    """The order's model, as it was sent here or from its folder.

    Raises:
        ModelError: neither is here, or the folder holds another model.
    """
    digest = order.plan.model_digest
    sent = _SENT.get(digest)
    # Temporary folders are swept, and a worker may serve for weeks: what is gone is sent again.
    if sent is not None and _is_whole(sent):
        return sent
    _SENT.pop(digest, None)
    model = open_model(order.model.folder)
    if model.card.digest != digest:
        raise ModelError(f"{model.folder}: another model stands there; send the right one")
    if not _is_whole(model):
        raise ModelError(f"{model.folder}: the weights are missing; send the model")
    return model


def _is_whole(model: Model) -> bool:
    return all((model.folder / name).is_file() for name in _names(model))


def stage_files(folder: Path, receipt: Receipt, files: Files) -> None:
    """Puts a block that travelled into the folder of finished blocks, whole or not at all.

    Raises:
        StagingError: what arrived is not what the receipt says, or less.
        DiskFullError, TargetError: the folder cannot be written.
    """
    damaged = StagingError(f"{folder}: block {receipt.block} arrived damaged; run again")
    if not receipt.files.keys() <= files.keys():
        raise damaged
    part = folder / f".{receipt.block}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        part.mkdir()
        for name in receipt.files:
            with (part / name).open("xb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
            if file_sha256(part / name) != receipt.files[name]:
                raise damaged
        fsync_folder(part)
        publish(part, folder / receipt.block)
    except OSError as error:
        if isinstance(error, TilemapperError):
            raise
        raise writing_failed(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
