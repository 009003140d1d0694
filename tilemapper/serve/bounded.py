"""A cache that holds so many bytes and no more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Least recently used values go first; safe to use from several threads.

    Args:
        limit_bytes: sum of the sizes of what is kept; one value that is larger is not kept.
        size: bytes of a value.
    """

    def __init__(self, limit_bytes: int, size: Callable[[Value], int]) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, now the most recently used; None if it is not held."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: Value) -> None:
        """Holds a value, and lets go of old ones until the limit is kept."""
        size = self._size(value)
        with self._lock:
            if key in self._values:
                self.held_bytes -= self._size(self._values.pop(key))
            if size > self.limit_bytes:
                return
            self._values[key] = value
            self.held_bytes += size
            while self.held_bytes > self.limit_bytes:
                _, old = self._values.popitem(last=False)
                self.held_bytes -= self._size(old)

    def drop(self, wanted: Callable[[Hashable], bool]) -> None:
        """Lets go of all values whose key is ``wanted``."""
        with self._lock:
            for key in [key for key in self._values if wanted(key)]:
                self.held_bytes -= self._size(self._values.pop(key))

    def __len__(self) -> int:
        return len(self._values)
