"""Calls of a function on the workers of a cluster: for whole rasters, where there are many.

Blocks of one raster are spread by `tilemapper.render.cluster`, whose cluster this borrows.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from tilemapper.errors import NoWorkerError, TilemapperError
from tilemapper.render.cluster.connection import address_of, connected
from tilemapper.render.cluster.own import own_workers
from tilemapper.render.cluster.surveying import check_versions
from tilemapper.render.messenger import candidates
from tilemapper.render.nannies import OwnWorkers, UnfitError
from tilemapper.render.spread import LONELY_S

DEPTH = 2  # calls out at a worker: one that runs, one that waits there
LOOK_S = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def staff(scheduler: str, *, insecure: bool = False, device: str = "cpu") -> int:
    """How many workers a running cluster has now that `spread_calls` would ask.

    Raises:
        NoWorkerError: no scheduler answers.
        OptionError: its address may not be used.
    """
    with connected(address_of(scheduler, insecure=insecure)) as client:
        return len(candidates(client, _asks_for_gpu(device)) or {})


def _asks_for_gpu(device: str) -> bool:
    """Whether workers that declare a GPU are to be asked alone, where there are some."""
    return not device.startswith("cpu")


def spread_calls(
    work: Callable[[Item], Result],
    items: Iterator[Item],
    *,
    failed: Callable[[Item, str], Result],
    workers: int = 2,
    scheduler: str | None = None,
    device: str = "cpu",
    insecure: bool = False,
    lonely_s: float = LONELY_S,
) -> Generator[Result, None, None]:
    """Results of ``work`` as they are finished; items are taken one by one as workers are free.

    Args:
        work: a function that workers can import. It must bear to be called again for the same
            item, since a worker may die; one of our own that raises `UnfitError` is sent away, and
            the item goes to another.
        items: what to call it with; each can be pickled.
        failed: makes the result of an item that workers died of, or that raised, from a line.
        workers: processes to start here, if no ``scheduler`` is named.
        scheduler: of a running cluster; see `tilemapper.render.address.scheduler_address`.
        insecure: take a scheduler on another machine without TLS.
        device: of our own workers, on ``cuda`` each sees one. Of a running cluster those that
            declare the resource ``GPU`` are asked alone, if there are some and it is not ``cpu``.
        lonely_s: how long a cluster without any worker is waited for.

    Raises:
        NoWorkerError: no scheduler, or no worker is left. Items not answered for are not lost.
        OptionError: the scheduler's address may not be used.
        TilemapperError: workers that are there have other versions than the client.
    """
    with contextlib.ExitStack() as stack:
        own: OwnWorkers | None = None
        gpu = False
        if scheduler is None:
            own = stack.enter_context(own_workers(workers, device, dashboard=False))
        address = address_of(scheduler, insecure=insecure) if own is None else own.cluster
        client = stack.enter_context(connected(address))
        if own is None:
            here = candidates(client, _asks_for_gpu(device)) or {}
            check_versions(client, here, time.monotonic() + lonely_s)
            # Decided once: a call that waits for a GPU is run by no other worker.
            gpu = any(here.values())
        yield from _answered(client, own, work, items, failed, lonely_s, gpu=gpu)


def _answered(
    client: Any,
    own: OwnWorkers | None,
    work: Callable[[Item], Result],
    items: Iterator[Item],
    failed: Callable[[Item, str], Result],
    lonely_s: float,
    *,
    gpu: bool,
) -> Iterator[Result]:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    again: list[Item] = []
    out: dict[str, tuple[Any, Item]] = {}
    run, count, more, staffed_s = secrets.token_hex(8), 0, True, time.monotonic()
    unfit: UnfitError | None = None
    try:
        while True:
            if unfit is not None and own is not None and own.failed:
                raise NoWorkerError(
                    f"workers: none is left with a GPU that can be used ({unfit.why}); look at "
                    "them with nvidia-smi, then run the same command again"
                )
            here = candidates(client, gpu) or {}  # none when no scheduler answers
            present = sum(here.values()) if gpu else len(here)
            if present:
                staffed_s = time.monotonic()
            elif time.monotonic() - staffed_s > lonely_s:
                raise NoWorkerError(
                    f"cluster: no worker {'with a GPU ' if gpu else ''}for {lonely_s:.0f} s; start "
                    "some, then run the same command again"
                )
            if own is not None:
                own.revive()
            while (again or more) and len(out) < DEPTH * present:
                item = again.pop() if again else next(items, None)
                if item is None:
                    more = False
                    break
                key, count = f"tilemapper-call-{run}-{count}", count + 1
                needs = {"GPU": 1} if gpu else None
                future = client.submit(work, item, key=key, pure=False, resources=needs)
                out[key] = (future, item)
                future.add_done_callback(lambda done: answers.put(done.key))
            if not (out or again or more):
                return
            with contextlib.suppress(queue.Empty):
                future, item = out.pop(answers.get(timeout=LOOK_S))
                try:
                    if future.status in ("lost", "cancelled"):
                        raise TimeoutError
                    result = _result(future, item, failed, lonely_s)
                except TimeoutError:
                    again.append(item)  # its worker died, or hangs, with the answer
                except UnfitError as error:
                    unfit = error
                    again.append(item)
                    _send_away(client, own, error.pid)
                else:
                    yield result
    finally:
        for future, _ in out.values():
            with contextlib.suppress(Exception):
                future.cancel()


def _send_away(client: Any, own: OwnWorkers | None, pid: int) -> None:
    """Closes a worker for good. Its nanny would start it again, to no better end."""
    address = None if own is None else own.address(pid)
    if address is not None:  # else it has gone already: two calls of one worker tell of it
        with contextlib.suppress(Exception):  # whatever dask raises when it ends meanwhile
            client.retire_workers([address], close_workers=True)


def _result(
    future: Any, item: Item, failed: Callable[[Item, str], Result], patience_s: float
) -> Result:
    if future.status == "finished":
        result: Result = future.result(timeout=patience_s)
        return result
    error = future.exception() if future.status == "error" else None
    if isinstance(error, UnfitError):
        raise error
    kind = type(error).__name__ if error is not None else future.status
    if isinstance(error, TilemapperError):
        return failed(item, str(error))
    if kind == "KilledWorker":
        return failed(item, "workers died while rendering it, several in turn; look at it alone")
    return failed(item, f"{kind}: {error}; report this as a defect")
