"""What the C library keeps of freed memory."""

from __future__ import annotations

import ctypes
import functools

_ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h


@functools.cache
def share_one_heap() -> bool:
    """Makes all threads take memory from one heap; True where the C library can do that.

    glibc gives threads heaps of their own, and each keeps what was freed in it. A render's threads
    hand large arrays on to each other, block after block, so those heaps would go on growing for
    many blocks: measured 60 MiB between the first and the fourth block, and no second saved.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc: nothing to do
        return False
    return bool(mallopt(_ARENA_MAX, 1))
