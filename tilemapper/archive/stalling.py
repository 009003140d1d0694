"""A scene that has stalled is told from a slow one by its signs of life, and given up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from tilemapper.archive.task import SceneTask, one_line
from tilemapper.errors import TryAgainError

LOOK_S = 1.0  # between two looks
LEAVE_S = 0.5  # of a process that ends: for its answer to get away

Sign = Callable[[int], None]
Result = TypeVar("Result")


class _Pulse:
    """For how long a scene has given no sign of life.

    Counted in looks and not by a clock: a run that was itself suspended for hours has not stalled.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._quiet_s = limit_s, 0.0
        self.ended = threading.Event()

    def sign(self, _tiles: int = 0) -> None:
        self._quiet_s = 0.0

    def stops(self) -> bool:
        """Waits for the end: True if the scene stalled before."""
        look_s = min(LOOK_S, self._limit_s / 4)
        while not self.ended.wait(look_s):
            self._quiet_s += look_s
            if self._quiet_s > self._limit_s:
                return True
        return False


@contextlib.contextmanager
def watched(limit_s: float, stalled: Callable[[], None]) -> Iterator[Sign]:
    """Yields what to call as a sign of life; without one for so long, ``stalled`` is called.

    That happens in another thread, since this one hangs: it can but end the process.
    """
    pulse = _Pulse(limit_s)

    def watch() -> None:
        if pulse.stops():
            stalled()

    thread = threading.Thread(target=watch, name="stalling", daemon=True)
    thread.start()
    try:
        yield pulse.sign
    finally:
        pulse.ended.set()
        thread.join()


def left_if_stalled(work: Callable[[Sign], Result], limit_s: float, line: str) -> Result:
    """What ``work`` returns or raises; it runs in a thread of its own, so that it can be left.

    Args:
        work: is given what to call as a sign of life.
        limit_s: for how long there may be none.
        line: of the error.

    Raises:
        TryAgainError: it has stalled. This process ends once the error has been sent: nothing
            else would free what the thread holds.
    """
    pulse, answer = _Pulse(limit_s), Future[Result]()

    def run() -> None:
        try:
            answer.set_result(work(pulse.sign))
        except BaseException as error:
            answer.set_exception(error)
        pulse.ended.set()

    threading.Thread(target=run, name="scene", daemon=True).start()
    if pulse.stops():
        threading.Timer(LEAVE_S, os._exit, (1,)).start()
        raise TryAgainError(line)
    return answer.result()


def line_of(task: SceneTask, then: str) -> str:
    """What is wrong with a scene that has stalled, and what follows, in one line."""
    minutes = f"{task.stall_s / 60:g} minutes"
    return one_line(f"{task.path}: no tile for {minutes} (run.stall_minutes), {then}", task)
