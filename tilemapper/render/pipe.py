"""One stage of the data's path in a thread of its own, a bounded queue behind it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextlib.contextmanager
def staged(items: Iterable[Item], *, depth: int, name: str) -> Iterator[Iterator[Item]]:
    """Runs ``items`` in a thread, at most ``depth`` of them ahead of the reader.

    An error inside comes out at the reader. On leaving, also through an exception, the thread is
    told to stop and waited for, so that nothing still computes when the program goes on.
    """
    ahead: queue.Queue[object] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ahead.put(item, timeout=0.05)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # handed to the reader, which raises it
            put(_Failure(error))

    def read() -> Iterator[Item]:
        while (item := ahead.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        stop.set()
        thread.join()
