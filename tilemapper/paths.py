"""Paths as somebody typed them; known to all rooms, as `errors` is."""

from __future__ import annotations

import os
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
