"""The streams of a command: open whatever its caller has closed, and its log no end of its work."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any, TextIO, cast


class _Log(io.FileIO):
    """A stream of bytes that loses what nobody can take: its reader has gone, its disk is full.

    Where its reader is only slow it waits, also in a pipe that the caller has set not to block.
    """

    def write(self, data: Any, /) -> int:  # bytes, or what gives them
        with contextlib.suppress(OSError):
            # Mypy takes the number for always there; of a full pipe that does not block it is None.
            while (taken := cast("int | None", super().write(data))) is None:
                select.select([], [self], [])
            return taken
        return memoryview(data).nbytes


def open_streams() -> None:
    """Opens on nothing what the caller has closed of stdin, stdout and stderr.

    The next file that is opened would take its number, and get what libraries print; in the
    processes that are started, too, so they inherit it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            os.set_inheritable(number := os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def outlive_readers_of_stderr() -> None:
    """Lets work go on where a word about it can no longer be said, as after ``2>&1 | head``.

    Stdout stays as it is: a result that cannot be given is a failure.
    """
    stderr: TextIO = sys.stderr
    with contextlib.suppress(OSError, ValueError):  # a test's or a notebook's, which has no number
        log = io.BufferedWriter(_Log(stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(
            log, encoding=stderr.encoding, errors=stderr.errors, line_buffering=True
        )
