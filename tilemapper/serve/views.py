"""Open files, lent to one thread at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Gives back what it holds."""
        ...


View = TypeVar("View", bound=Closing)
KEPT = 4  # open files of one kind that wait for the next thread


class Views(Generic[View]):
    """Opens a view when none is free; GDAL's data sets must not be shared between threads."""

    def __init__(self, opener: Callable[[], View]) -> None:
        self._opener = opener
        self._free: list[View] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def lent(self) -> Iterator[View]:
        """A view for the time of the ``with``; raises what opening it raises."""
        with self._lock:
            view = self._free.pop() if self._free else None
        view = view or self._opener()
        try:
            yield view
        finally:
            with self._lock:
                keep = not self._closed and len(self._free) < KEPT
                if keep:
                    self._free.append(view)
            if not keep:
                view.close()

    def close(self) -> None:
        """Closes what is free now, and what comes back later."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for view in free:
            view.close()
