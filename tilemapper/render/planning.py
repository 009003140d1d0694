"""From what a user asks to a plan: every ``auto`` decided, the source looked at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilemapper.errors import OptionError
from tilemapper.networks.model import Model
from tilemapper.networks.renderable import check_renders
from tilemapper.raster.lattice import Lattice, overlap_for
from tilemapper.raster.source import SourceOptions, inspect_source
from tilemapper.raster.tone import Statistics
from tilemapper.render.devices import auto_batch, choose_device, choose_precision
from tilemapper.render.division import CUDA_BLOCK, MANY, block_for, worker_count
from tilemapper.render.plan import DEFAULT_BLOCK, Plan
from tilemapper.render.plan_making import make_plan
from tilemapper.render.staging import stored_plan


def plan_render(
    source: str | Path,
    target: Path | None,
    model: Model,
    *,
    overlap: int | None = None,
    batch_size: int | str | None = None,
    block: int | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    gsd: str | float = "auto",
    bidx: Sequence[int] | None = None,
    nodata: float | None = None,
    scale: tuple[float, float] | None = None,
    bounds: tuple[float, float, float, float] | None = None,
    mask: str | Path | None = None,
    tone: str = "none",
    driver: str = "COG",
    creation_options: Mapping[str, str] | None = None,
    allow_drivers: Sequence[str] = (),
    classes: str | Path | None = None,
    uncertainty: str | Path | None = None,
    tta: bool = False,
    compiled: bool = False,
    compile: bool = False,
    workers: str | int = "auto",
    scheduler: str | None = None,
    insecure: bool = False,
    restart: bool = False,
    open_batch: int | None = None,
) -> Plan:
    """The plan of a render; options are those of the command, None standing for ``auto`` too.

    Without a target nothing is to be written. A scheduler is asked for its workers' devices. What
    an unfinished render has chosen for itself is kept, unless ``restart`` throws it away.
    ``compiled`` is ``compile`` by the name that the rest of the package has for it. ``open_batch``
    is that of an engine that is open: on a GPU less memory is free beside it than there was.

    Raises:
        OptionError, RasterError, ModelError, DeviceError, NoWorkerError: as they are named.
    """
    check_renders(model.card)
    batch_size, block = _number("batch_size", batch_size), _number("block", block)
    if isinstance(bidx, str):
        raise OptionError(f"bidx {bidx!r}: numbers of bands are needed, such as (1, 2, 3)")
    stored = (stored_plan(target) if target and not restart else None) or {}
    options = SourceOptions(
        gsd=gsd,
        bidx=tuple(bidx) if bidx else None,
        nodata=nodata,
        scale=scale,
        bounds=bounds,
        mask=str(mask) if mask else None,
        tone=_tone(model, tone),
        allow_drivers=tuple(allow_drivers),
    )
    spec = inspect_source(str(source), options, model.card.gsd_m)
    overlap = overlap_for(model.card.tile, overlap)
    lattice = Lattice(spec.height, spec.width, overlap, model.card.tile)
    tiles, devices, batch = lattice.tile_count, "", None
    if scheduler is not None:
        from tilemapper.render.cluster import survey  # loads dask

        found = survey(scheduler, model, device=device, insecure=insecure)
        count, device = found.workers, found.device
        precision = found.precision if precision == "auto" else precision
        batch = found.batch_size
    else:
        count = worker_count(workers, device, tiles)
        devices, device = device, choose_device(device)
    on_cuda, large = device.startswith("cuda"), tiles >= MANY
    largest = CUDA_BLOCK if on_cuda and large else DEFAULT_BLOCK
    precision = choose_precision(precision, devices if "," in devices else device, model)
    plan = make_plan(
        spec,
        model,
        target or Path("map"),
        overlap=overlap,
        # Blocks decide nothing but what can be resumed: an unfinished render keeps its own, and
        # its batch, by whose shape a GPU's libraries choose their algorithms.
        block=block
        if block is not None
        else stored.get("block")
        or block_for(spec.height, spec.width, overlap, count, largest, tile=model.card.tile),
        device=device,
        precision=precision,
        batch_size=batch_size
        if batch_size is not None
        else _stored_batch(stored, device)
        or batch
        or open_batch
        or auto_batch(device, model, precision),
        driver=driver,
        creation_options=creation_options or {},
        classes=Path(classes) if classes else None,
        uncertainty=Path(uncertainty) if uncertainty else None,
        tta=tta,
        compiled=compiled or compile,
    )
    if devices == "auto" and on_cuda:
        devices = "cuda"
    return replace(plan, workers=count, devices=devices)


def _number(name: str, value: int | str | None) -> int | None:
    """A number, or None for ``auto``."""
    if value is None or value == "auto":
        return None
    if isinstance(value, str):
        raise OptionError(f"{name} {value!r}: a number or auto is needed")
    return value


def _stored_batch(stored: Mapping[str, Any], device: str) -> int | None:
    """The batch of an unfinished render on the same kind of device."""
    same = stored.get("deciding", {}).get("device") == device.partition(":")[0]
    return stored.get("batch_size") if same else None


def _tone(model: Model, wanted: str) -> Statistics | None:
    if wanted not in ("none", "match"):
        raise OptionError(f"--tone {wanted!r}: unknown, none or match is needed")
    if wanted == "none":
        return None
    if model.card.tone is None:
        raise OptionError(
            f"--tone match: the card of model {model.card.name} has no tone to match; use none"
        )
    return model.card.tone.mean, model.card.tone.std
