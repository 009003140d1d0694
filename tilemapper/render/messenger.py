"""Carries orders to the workers of a dask cluster, and their answers back into one queue."""

from __future__ import annotations

import contextlib
import importlib
import logging
import pickle
import queue
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tilemapper.raster.lattice import Block
from tilemapper.render.crew import Event, Examined, Finished, Progress
from tilemapper.render.journal import Receipt
from tilemapper.render.nannies import OwnWorkers
from tilemapper.render.workers import Files, Look, Order, model_files

LOG = logging.getLogger(__name__)

ANSWER_S = 15.0  # for one answer of the scheduler
# How dask names, as errors, that a task or its answer is gone with its worker or its client.
LOST = frozenset(
    {"KilledWorker", "CancelledError", "FutureCancelledError", "FuturesCancelledError"}
)


def candidates(client: Any, gpu: bool) -> dict[str, bool] | None:
    """Running workers and whether they declare a GPU; if some do, only those. None: no answer."""
    try:
        identity = client.sync(client.scheduler.identity, callback_timeout=ANSWER_S)
    except Exception:  # whatever dask raises when a scheduler is gone or slow
        return None
    running = {
        address: gpu and bool(worker["resources"].get("GPU"))
        for address, worker in identity["workers"].items()
        if worker["status"] == "running"
    }
    if any(running.values()):
        return {address: True for address, declared in running.items() if declared}
    return running


def loading(client: Any, module: str, address: str) -> Any:
    """A worker loads what is to run there; given to its first task as an argument.

    A worker closes when it cannot unpack what it is sent, so nothing of ours may come before: with
    another version of the package, or none, this fails alone, and the task with it, unsent.
    """
    return client.submit(importlib.import_module, module, workers=[address], pure=False)


@dataclass(frozen=True)
class Tasks:
    """What workers are asked to do, as functions that are sent by name from one module."""

    module: str
    examine: Callable[[bytes, Any], Look]
    take_model: Callable[[bytes, bytes], Look]
    render: Callable[[bytes, Block, str, str, bool], tuple[Receipt, Files]]


class Messenger:
    """The workers of a dask cluster, as `tilemapper.render.crew.Crew`."""

    def __init__(self, client: Any, order: Order, tasks: Tasks, own: OwnWorkers | None) -> None:
        self._client, self._order, self._tasks, self._own = client, order, tasks, own
        self._payload = pickle.dumps(order)
        self._topic = f"tilemapper-{order.plan.fingerprint[:16]}-{secrets.token_hex(4)}"
        self._gpu: dict[str, bool] = {}
        self._futures: dict[str, Any] = {}
        self._asked = 0
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.subscribe_topic(self._topic, lambda event: self._heard.put(("", event[1])))

    def present(self) -> set[str] | None:
        """See `Crew.present`; also starts own workers that stayed dead."""
        if self._own is not None:
            self._own.revive()
        found = candidates(self._client, self._order.plan.device.startswith("cuda"))
        if found is None:
            return None
        self._gpu = found
        return set(found)

    def examine(self, address: str) -> None:
        """See `Crew.examine`."""
        task = self._tasks.examine
        self._submit(f"?{address}", task, self._payload, address=address, first=True)

    def send_model(self, address: str) -> None:
        """See `Crew.send_model`: once for each worker, by way of the scheduler."""
        files = pickle.dumps(model_files(self._order.model))
        try:
            data = self._client.scatter(files, workers=[address], hash=False, direct=False)
        except Exception as error:  # whatever dask raises when a worker or a scheduler is gone
            self._unsent(f"?{address}", error)
        else:
            self._submit(
                f"?{address}", self._tasks.take_model, self._payload, data, address=address
            )

    def render(self, ticket: str, address: str, block: Block, *, carry: bool) -> None:
        """See `Crew.render`."""
        resources = {"GPU": 1} if self._gpu.get(address) else None
        arguments = (self._payload, block, ticket, self._topic, carry)
        self._submit(ticket, self._tasks.render, *arguments, address=address, resources=resources)

    def _submit(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        address: str,
        resources: dict[str, int] | None = None,
        first: bool = False,
    ) -> None:
        self._asked += 1
        try:
            if first:
                arguments = (*arguments, loading(self._client, self._tasks.module, address))
            future = self._client.submit(
                function,
                *arguments,
                key=f"{self._topic}-{name}-{self._asked}",
                workers=[address],
                allow_other_workers=False,
                resources=resources,
                pure=False,
            )
        except Exception as error:  # whatever dask raises when its client is closed
            self._unsent(name, error)
            return
        self._futures[name] = future
        self._client.loop.add_callback(self._fetch, name, future)

    async def _fetch(self, name: str, future: Any) -> None:
        """Fetches an answer in the client's own loop: whoever asks for events never waits for it.

        A worker may die with the answer in its hands; then the scheduler waits for another at the
        same address, and this ends when the ticket is forgotten.
        """
        answer: Any = None
        try:
            answer = await self._client.gather(future, asynchronous=True)
        except Exception as error:
            answer = None if type(error).__name__ in LOST else error
        self._heard.put((name, (future, answer)))

    def _unsent(self, name: str, error: Exception) -> None:
        LOG.info("%s: could not be sent: %s", name, error)
        self._heard.put((name, (None, None)))

    def forget(self, ticket: str) -> None:
        """See `Crew.forget`."""
        future = self._futures.pop(ticket, None)
        if future is not None:
            with contextlib.suppress(Exception):  # the scheduler may be gone: then so is the task
                future.cancel()

    def end(self, address: str) -> None:
        """See `Crew.end`."""
        if self._own is not None:
            self._own.kill(address)

    def events(self, timeout_s: float) -> Iterator[Event]:
        """See `Crew.events`."""
        with contextlib.suppress(queue.Empty):
            heard = self._heard.get(timeout=timeout_s)
            while True:
                event = self._event(*heard)
                if event is not None:
                    yield event
                heard = self._heard.get_nowait()

    def _event(self, name: str, what: Any) -> Event | None:
        if not name:
            return Progress(what["ticket"], what["tiles"])
        future, answer = what
        if future is not None and self._futures.get(name) is not future:
            return None
        if name.startswith("?"):
            self.forget(name)
            return Examined(name[1:], answer)
        return Finished(name, answer)

    def close(self) -> None:
        """Takes all orders back."""
        for ticket in list(self._futures):
            self.forget(ticket)
