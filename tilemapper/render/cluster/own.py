"""Workers of our own: a scheduler in this process, its workers beside it, on loopback alone."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dask
from distributed import Nanny, Scheduler, SpecCluster
from distributed.security import Security

from tilemapper.errors import NoWorkerError, OptionError
from tilemapper.memory import ENVIRONMENT
from tilemapper.render.desk import CUDA_AT_ONCE
from tilemapper.render.division import environments
from tilemapper.render.nannies import OwnWorkers, end_process, quiet_dask
from tilemapper.render.spread import LOAD_S

LOG = logging.getLogger(__name__)

STARTS = 20  # of a worker, if it dies each time before it is up
START_S = 30.0  # for one of them: longer than that, it hangs
DEATH_S = STARTS * START_S  # dask's own limit for all of them, which gives the worker up
DASHBOARD = "127.0.0.1:8787"
PRELOAD, HUSH = "distributed.worker.preload", "tilemapper.render.hush"
# Blocks are dealt out one by one to named workers: dask is not to move them, nor to wait for ever.
CONFIG = {
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.no-workers-timeout": "60s",
    # A process that hangs is ended by its nanny, where nobody else listens for signs of life.
    "distributed.scheduler.worker-ttl": "30s",
    # Our nannies start their workers again, however long that takes.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    # Where NVIDIA's library is installed dask asks it for loads that nobody looks at here, and
    # dies of an answer that it does not expect: of no device (CUDA_VISIBLE_DEVICES=-1, or a UUID
    # that is shortened), of a driver that was replaced under it.
    "distributed.diagnostics.nvml": False,
    # Not dask's own MALLOC_TRIM_THRESHOLD_, which makes every large array a fresh mapping.
    "distributed.nanny.pre-spawn-environ": dict(ENVIRONMENT),
}


class _Nanny(Nanny):
    """Starts a worker again that dies or hangs while it is started: dask would give it up."""

    async def instantiate(self) -> Any:
        """The status of the worker, running unless it died many times in a row."""
        for left in reversed(range(STARTS)):
            late = asyncio.get_running_loop().call_later(START_S, end_process, self)
            try:
                status = await super().instantiate()
            except Exception:  # whatever its start raised, as a worker or as a process
                if not left or self.status.name not in ("init", "running"):
                    raise
                end_process(self)
            else:
                if status.name == "running" or self.status.name not in ("init", "running"):
                    break
            finally:
                late.cancel()
        return status

    async def kill(self, *arguments: Any, **options: Any) -> None:
        """Ends the worker at once: one that hangs obeys nothing else, and no block is lost."""
        end_process(self)
        await super().kill(*arguments, **options)


class _Cluster(SpecCluster):
    """Workers that come when they are up: one that hangs at its start holds nobody up."""

    def __init__(self, *, workers: dict[int, Any], **options: Any) -> None:
        self._coming = workers
        super().__init__(workers={}, **options)  # type: ignore[no-untyped-call]

    def new_worker_spec(self) -> dict[int, Any]:
        """The next one, as `scale` asks for it."""
        name = len(self.worker_spec)
        return {name: self._coming[name]}


@contextlib.contextmanager
def own_workers(count: int, device: str, *, dashboard: bool) -> Iterator[OwnWorkers]:
    """A scheduler in this process and ``count`` workers beside it, all on the loopback interface.

    Raises:
        NoWorkerError: they cannot be started.
        OptionError: a dashboard needs bokeh, which is missing.
    """
    if dashboard and importlib.util.find_spec("bokeh") is None:
        raise OptionError("--dashboard: bokeh is not installed; pip install bokeh, or leave it out")
    own = OwnWorkers(_Nanny)
    with (
        _kept(ENVIRONMENT),
        quiet_dask(),
        tempfile.TemporaryDirectory(prefix="tilemapper-", ignore_cleanup_errors=True) as scratch,
        dask.config.set(
            CONFIG
            | {PRELOAD: [HUSH, *dask.config.get(PRELOAD, [])]}
            | {"temporary-directory": scratch}  # or locks of dask's stay among everyone's files
        ),
    ):
        threads = CUDA_AT_ONCE if device.startswith("cuda") else 1
        found = environments(count, device)
        options = _cluster_options(own, found, scratch, dashboard, threads)
        try:
            try:
                own.cluster = _Cluster(**options)
            except (RuntimeError, OSError) as error:
                raise _unstarted(count, str(error)) from error
            own.cluster.scale(count)
            deadline = time.monotonic() + LOAD_S
            while not own.cluster.scheduler.workers:  # the others come as they are ready
                if own.failed or time.monotonic() > deadline:
                    raise _unstarted(count, "they die or hang")
                time.sleep(0.05)
            if dashboard:
                LOG.warning("dashboard: %s", own.cluster.dashboard_link)
            yield own
        finally:
            own.end()


@contextlib.contextmanager
def _kept(names: Iterable[str]) -> Iterator[None]:
    """Sets these variables back, which nannies set here for the processes that they start.

    No others: threads may be reading them, or have set them meanwhile.
    """
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _unstarted(count: int, reason: str) -> NoWorkerError:
    return NoWorkerError(
        f"workers: {count} could not be started ({reason}); free memory or processes, then run "
        "the same command again"
    )


def _cluster_options(
    own: OwnWorkers,
    found: Sequence[dict[str, str]],
    scratch: str,
    dashboard: bool,
    threads: int,
) -> dict[str, Any]:
    # Other users of this machine reach the loopback interface too: certificates for this run only
    # keep them from sending our workers code.
    safe = importlib.util.find_spec("cryptography") is not None
    security = Security.temporary() if safe else Security(require_encryption=False)  # type: ignore[no-untyped-call]
    protocol = "tls://" if safe else "tcp://"
    common = {"host": "127.0.0.1", "protocol": protocol, "security": security}
    worker = common | {
        "nthreads": threads,
        "memory_limit": 0,
        "local_directory": scratch,
        "death_timeout": DEATH_S,
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
