"""Paths as somebody typed them, folders that are somebody's; known to all rooms, as `errors` is."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def typed_path(path: str | Path) -> Path:
    """The path with its ``~`` or ``~user`` expanded; that of nobody known is a name like any other.

    So what is not there is told as missing, in the words of whoever looks for it.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def real_path(path: str | Path) -> Path:
    """The path with links followed, as far as they lead anywhere.

    Before Python 3.13 `Path.resolve` raises RuntimeError at a link to itself, which nobody awaits.
    Raises ValueError at a zero byte, as it does.
    """
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until nobody else is alone in a folder, in this process or another.

    Nobody is waited for where the folder is not there yet, or its file system locks no folders.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
