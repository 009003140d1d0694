"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping

MIB = 1 << 20
# For processes that are yet to start, as glibc's environment variables: see `keep_freed_memory`.
ENVIRONMENT: Mapping[str, int] = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": 32 * MIB,
    "MALLOC_TRIM_THRESHOLD_": 256 * MIB,
}
# The same by the numbers of glibc's malloc.h: M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD.
_OPTIONS = ((-8, 1), (-3, 32 * MIB), (-1, 256 * MIB))


@functools.cache
def keep_freed_memory() -> bool:
    """Has all threads share one heap that keeps what was freed; True where that can be set.

    Every row of tiles needs arrays of the same tens of megabytes again. By default glibc gives
    them back to the system when they are freed, and a page that comes back has to be cleared
    first: up to 3.5 ms of a tile's 20. It also gives threads heaps of their own; arrays that one
    thread makes and another frees then leave holes in each, and memory grows for many blocks.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc: nothing to do
        return False
    return all(mallopt(option, value) for option, value in _OPTIONS)
