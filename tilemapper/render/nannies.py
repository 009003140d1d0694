"""Worker processes of our own: kept alive, killed at the end, and quiet.

dask's classes are handed in: this knows how they behave, `tilemapper.render.cluster` imports them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def end_process(nanny: Any) -> None:
    """Kills a nanny's worker, whatever state both are in; nothing if there is none."""
    if nanny.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(nanny.pid, signal.SIGKILL)


class UnfitError(Exception):
    """Raised in a worker of our own in which nothing can be rendered: its GPU is gone.

    What it was called with goes to others. ``args``: why, in a line, and its process id.
    """

    def __init__(self, why: str, pid: int) -> None:
        super().__init__(why, pid)
        self.why, self.pid = why, pid


class OwnWorkers:
    """Worker processes of this one, each watched by a nanny that starts it again if it dies.

    Attributes:
        cluster: dask's cluster of them, once it stands.
    """

    def __init__(self, nanny: Callable[..., Any]) -> None:
        self.cluster: Any = None
        self._class, self._nannies = nanny, list[Any]()
        self._dead_s: dict[int, float] = {}

    def nanny(self, *arguments: Any, **options: Any) -> Any:
        """Makes a nanny; given to dask as the class of its workers."""
        self._nannies.append(self._class(*arguments, **options))
        return self._nannies[-1]

    @property
    def failed(self) -> bool:
        """Whether all of them were given up, so that none will ever come."""
        given_up = [nanny.status.name in ("closed", "failed") for nanny in self._nannies]
        return bool(given_up) and all(given_up)

    def revive(self) -> None:
        """Starts workers that died while they were started: dask leaves them dead."""
        for index, nanny in enumerate(self._nannies):
            if nanny.status.name != "running" or nanny.is_alive():
                self._dead_s.pop(index, None)
            elif time.monotonic() - self._dead_s.setdefault(index, time.monotonic()) > 5:
                del self._dead_s[index]
                self.cluster.loop.add_callback(nanny.instantiate)

    def address(self, pid: int) -> str | None:
        """The address of the worker in a process; None if there is none by now."""
        found = (nanny.worker_address for nanny in self._nannies if nanny.pid == pid)
        return next(found, None)

    def kill(self, address: str) -> None:
        """Kills one worker; its nanny starts another."""
        for nanny in self._nannies:
            if nanny.worker_address == address:
                end_process(nanny)

    def end(self) -> None:
        """Kills all workers and closes the cluster. Blocks are whole or not there: none is lost."""
        for nanny in self._nannies:
            if nanny.status.name not in ("closing", "closed", "failed"):
                nanny.close_gracefully()
            end_process(nanny)
        if self.cluster is not None:
            with contextlib.suppress(TimeoutError):
                self.cluster.close(timeout=5)
        for nanny in self._nannies:  # one that was just being started
            end_process(nanny)
        self.cluster = None
        self._nannies.clear()


@contextlib.contextmanager
def quiet_dask() -> Iterator[None]:
    """Keeps dask's own talk off stderr: what a user must know is said in one line of ours."""
    families = ("distributed", "tornado", "bokeh", "asyncio")
    names = [name for name in logging.root.manager.loggerDict if name.startswith(families)]
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        for family in families:
            warnings.filterwarnings("ignore", module=family)
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
