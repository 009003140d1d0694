"""Renders on the workers of a dask cluster: one of our own on this machine, or a running one.

The only place of dask. Who renders what is decided in `tilemapper.render.spread`, what a worker
does is in `tilemapper.render.desk`; here both are given a cluster.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import pickle
import secrets
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, get_worker
from distributed.security import Security

from tilemapper.errors import NoWorkerError, OptionError, TilemapperError
from tilemapper.networks.model import Model
from tilemapper.raster.lattice import Block
from tilemapper.render.address import scheduler_address
from tilemapper.render.desk import render_here
from tilemapper.render.devices import choose_device, choose_precision
from tilemapper.render.division import environments, threads_each, worker_count
from tilemapper.render.journal import Receipt
from tilemapper.render.messenger import Messenger, Tasks, candidates
from tilemapper.render.nannies import OwnWorkers, quiet_dask
from tilemapper.render.plan import Plan
from tilemapper.render.spread import LONELY_S, Spread
from tilemapper.render.workers import Files, Look, Order, examine, take_model, versions

LOG = logging.getLogger(__name__)

CONNECT_S = 30.0
BEAT_S = 0.5  # between two signs of life of a worker
STARTS = 20  # of a worker, if it dies each time before it is up
DASHBOARD = "127.0.0.1:8787"
# Blocks are dealt out one by one to named workers: dask is not to move them, nor to wait for ever.
CONFIG = {
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.no-workers-timeout": "60s",
    # Our nannies start their workers again, however long that takes.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": 65536},
}


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

    The first five arguments are those of `tilemapper.render.render.render_blocks`. ``workers``
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
    # The copy leaves behind what a plan has computed for itself: it travels with every block.
    where = (f"{probe.parent.name}/{probe.name}", text)
    order = Order(replace(plan), model, folder.resolve(), where, versions())
    own: OwnWorkers | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, probe.parent, ignore_errors=True)
        probe.parent.mkdir()
        probe.write_text(text)
        if scheduler is None:
            count = min(len(pending), worker_count(workers) or 1)
            own = stack.enter_context(_own_workers(count, plan.device, dashboard=dashboard))
            if plan.device.startswith("cuda"):
                order = replace(order, plan=replace(plan, device="cuda:0"))
            else:
                order = replace(order, threads=threads_each(count))
        address = _address(scheduler, insecure) if own is None else own.cluster
        client = stack.enter_context(_connected(address))
        crew = stack.enter_context(contextlib.closing(Messenger(client, order, TASKS, own)))
        yield from Spread(crew, pending, folder, tick, **patience)


@dataclass(frozen=True)
class Survey:
    """What a running cluster has: workers that can take part, their device, its precision."""

    workers: int
    device: str
    precision: str


def survey(scheduler: str, model: Model, *, device: str = "auto", insecure: bool = False) -> Survey:
    """Asks the workers of a running cluster for their devices, of which the client may have none.

    Raises:
        NoWorkerError: no scheduler or no worker answers within a minute.
        OptionError: the scheduler's address may not be used.
    """
    kind = device.partition(":")[0]
    with _connected(_address(scheduler, insecure)) as client:
        deadline = time.monotonic() + LONELY_S
        while time.monotonic() < deadline:
            asked = [
                client.submit(_device_of, kind, pickle.dumps(model), workers=[at], pure=False)
                for at in candidates(client, kind != "cpu") or {}
            ]
            answers = []
            for future in asked:
                with contextlib.suppress(Exception):  # one that cannot answer does not count
                    answers.append(future.result(timeout=max(1.0, deadline - time.monotonic())))
            if answers:
                best = max(name for name, _ in answers)
                precisions = {precision for name, precision in answers if name == best}
                agreed = precisions.pop() if len(precisions) == 1 else "fp32"
                return Survey(sum(name == best for name, _ in answers), best, agreed)
            time.sleep(1.0)
    raise NoWorkerError(f"{scheduler}: no worker answers; start some, then run the command again")


def _address(scheduler: str | None, insecure: bool) -> str:
    configured = dask.config.get("scheduler-address", None)
    return scheduler_address(scheduler or "dask", configured, insecure=insecure)


@contextlib.contextmanager
def _connected(address: Any) -> Iterator[Any]:
    """A client of a scheduler, for a while; TLS is as dask's configuration says."""
    with quiet_dask():
        try:
            client: Any = Client(  # type: ignore[no-untyped-call]
                address, timeout=CONNECT_S, set_as_default=False, name="tilemapper"
            )
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise NoWorkerError(
                f"{address}: no scheduler answers ({error}); start it, check its address and TLS "
                "settings, then run the same command again"
            ) from error
        try:
            yield client
        finally:
            with contextlib.suppress(OSError, TimeoutError):
                client.close(timeout=2)


# From here on: what runs on a worker.


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


def _examine(payload: bytes) -> Look:
    return examine(_order(payload))


def _take_model(payload: bytes, files: bytes) -> Look:
    order = _order(payload)
    take_model(order.plan.model_digest, pickle.loads(files), _scratch())
    return examine(order)


def _device_of(kind: str, model: bytes) -> tuple[str, str]:
    device = choose_device(kind)
    return device, choose_precision("auto", device, pickle.loads(model))


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
        return render_here(_order(payload), block, beat, carry=carry, scratch=_scratch())
    except TilemapperError as error:
        failure = type(error)(str(error))
        failure.add_note("".join(traceback.format_exception(error)))
    # Raised out here it has no cause: GDAL's errors cannot be unpacked where they arrive.
    raise failure


TASKS = Tasks(_examine, _take_model, _render)


# And our own workers.


class _Nanny(Nanny):
    """Starts a worker again that dies while it is started: dask would give the cluster up."""

    async def instantiate(self) -> Any:
        """The status of the worker, running unless it died many times in a row."""
        for _ in range(STARTS):
            status = await super().instantiate()
            if status.name == "running" or self.status.name not in ("init", "running"):
                break
        return status


@contextlib.contextmanager
def _own_workers(count: int, device: str, *, dashboard: bool) -> Iterator[OwnWorkers]:
    """A scheduler in this process and ``count`` workers beside it, all on the loopback interface.

    Raises:
        NoWorkerError: they cannot be started.
        OptionError: a dashboard needs bokeh, which is missing.
    """
    if dashboard and importlib.util.find_spec("bokeh") is None:
        raise OptionError("--dashboard: bokeh is not installed; pip install bokeh, or leave it out")
    own = OwnWorkers(_Nanny)
    before = dict(os.environ)
    with (
        quiet_dask(),
        dask.config.set(CONFIG),
        tempfile.TemporaryDirectory(prefix="tilemapper-", ignore_cleanup_errors=True) as scratch,
    ):
        options = _cluster_options(own, environments(count, device), scratch, dashboard)
        try:
            try:
                own.cluster = SpecCluster(**options)  # type: ignore[no-untyped-call]
            except (RuntimeError, OSError) as error:
                raise NoWorkerError(
                    f"workers: {count} could not be started ({error}); free memory or processes, "
                    "then run the same command again"
                ) from error
            if dashboard:
                LOG.warning("dashboard: %s", own.cluster.dashboard_link)
            yield own
        finally:
            own.end()
            # Nannies set variables here for the processes that they start.
            os.environ.clear()
            os.environ.update(before)


def _cluster_options(
    own: OwnWorkers, found: Sequence[dict[str, str]], scratch: str, dashboard: bool
) -> dict[str, Any]:
    # Other users of this machine reach the loopback interface too: certificates for this run only
    # keep them from sending our workers code.
    safe = importlib.util.find_spec("cryptography") is not None
    security = Security.temporary() if safe else Security(require_encryption=False)  # type: ignore[no-untyped-call]
    protocol = "tls://" if safe else "tcp://"
    common = {"host": "127.0.0.1", "protocol": protocol, "security": security}
    worker = common | {
        "nthreads": 1,
        "memory_limit": 0,
        "local_directory": scratch,
        "death_timeout": LONELY_S,
        "silence_logs": logging.CRITICAL,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
    }
    scheduler = common | {
        "port": 0,
        "dashboard": dashboard,
        "dashboard_address": DASHBOARD if dashboard else "127.0.0.1:0",
    }
    return {
        "scheduler": {"cls": Scheduler, "options": scheduler},
        "workers": {
            index: {"cls": own.nanny, "options": worker | {"env": environment}}
            for index, environment in enumerate(found)
        },
        "security": security,
        "silence_logs": logging.CRITICAL,
    }
