"""Bounded work in threads for requests whose browser may go away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tilemapper.serve.limits import BusyError, Dropped

Answer = TypeVar("Answer")
_LOOK_S = 0.25  # between looks whether the browser is still there


class Turns:
    """A few threads, a bounded queue before them; runs in the server's event loop.

    Args:
        threads: how many work at once.
        waiting: requests in work or waiting; a further one is refused.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._most, self.inside = waiting, 0
        self._slots = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, "request")

    async def run(
        self,
        work: Callable[[threading.Event], Answer],
        is_gone: Callable[[], Awaitable[bool]],
    ) -> Answer:
        """What ``work`` gives; it is called with an event that is set when nobody waits for it.

        Raises:
            BusyError: too many wait.
            Dropped: the browser has gone.
        """
        if self.inside >= self._most:
            raise BusyError(f"{self.inside} requests wait already; come again", 1)
        self.inside += 1
        gone = threading.Event()
        try:
            async with self._slots:
                if await is_gone():  # while it waited
                    raise Dropped
                task = asyncio.get_running_loop().run_in_executor(self._pool, work, gone)
                while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
                    if await is_gone():
                        gone.set()
                return task.result()
        finally:
            gone.set()
            self.inside -= 1

    def close(self) -> None:
        """Waits for no one: what runs ends by itself when the generator is closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)
