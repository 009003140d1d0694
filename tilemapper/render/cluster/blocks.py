"""Spreads the blocks of one render over a cluster's workers."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilemapper.networks.model import Model
from tilemapper.raster.lattice import Block
from tilemapper.raster.opening import is_remote
from tilemapper.render.cluster.connection import address_of, connected
from tilemapper.render.cluster.own import own_workers
from tilemapper.render.cluster.tasks import TASKS
from tilemapper.render.division import threads_each, worker_count
from tilemapper.render.journal import Receipt
from tilemapper.render.messenger import Messenger
from tilemapper.render.nannies import OwnWorkers
from tilemapper.render.plan import Plan
from tilemapper.render.spread import Spread
from tilemapper.render.workers import Order, versions


def spread_blocks(
    plan: Plan,
    model: Model,
    pending: Sequence[Block],
    folder: Path,
    tick: Callable[[int], None] | None,
    *,
    workers: str | int = "auto",
    scheduler: str | None = None,
    dashboard: bool = False,
    insecure: bool = False,
    **patience: Any,
) -> Generator[Receipt, None, None]:
    """Renders the pending blocks on the workers of a cluster; receipts as they are finished.

    The first five arguments are those of `tilemapper.render.blocks.render_blocks`. ``workers``
    says how many processes to start here, if no ``scheduler`` is named (see `scheduler_address`,
    also for ``insecure``). ``dashboard`` shows dask's for our own workers, on the loopback
    interface. ``patience`` is how long to wait for what, as `Spread` names it.

    Raises:
        NoWorkerError: no scheduler or no worker, at the start or later. What is done is kept.
        OptionError: the scheduler's address may not be used.
        TilemapperError: workers do not fit the client, or a block failed four times.
    """
    if not pending:
        return
    probe, text = folder / f".probe-{secrets.token_hex(8)}" / "text", secrets.token_hex(16)
    where = (f"{probe.parent.name}/{probe.name}", text)
    order = Order(_sent(plan), model, folder.resolve(), where, versions())
    own: OwnWorkers | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, probe.parent, ignore_errors=True)
        probe.parent.mkdir()
        probe.write_text(text)
        if scheduler is None:
            count = min(len(pending), worker_count(workers) or 1)
            own = stack.enter_context(
                own_workers(count, plan.devices or plan.device, dashboard=dashboard)
            )
            if plan.device.startswith("cuda"):
                order = replace(order, plan=replace(order.plan, device="cuda:0"))
            else:
                order = replace(order, threads=threads_each(count))
        address = address_of(scheduler, insecure=insecure) if own is None else own.cluster
        client = stack.enter_context(connected(address))
        crew = stack.enter_context(contextlib.closing(Messenger(client, order, TASKS, own)))
        yield from Spread(crew, pending, folder, tick, **patience)


def _sent(plan: Plan) -> Plan:
    """The plan as it travels with every block: without what it has computed for itself.

    Workers were started anywhere: a source typed as ``city.tif`` lies in the client's folder.
    """
    path = plan.source.path
    if not is_remote(path):
        path = str(Path(path).absolute())
    return replace(plan, source=replace(plan.source, path=path))
