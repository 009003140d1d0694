"""SIGTERM and SIGINT: they end a command wherever they meet it, once, with one line.

Imports nothing heavy: the sooner it listens, the fewer signals meet Python's own handlers.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

from tilemapper.errors import Interrupted, interruption_behind

_AGAIN_S = 1.0
_LOOK_S = 0.05
_LOAD_S = 4.0  # for what is being imported, when a signal comes
_ASKING = (signal.SIGTERM, signal.SIGINT)
_received = 0
_since_s = 0.0
_listening = False


def listen() -> None:
    """From now on the first signal raises `Interrupted` in the main thread.

    Code that runs then may swallow it: finalizers, callbacks from C, a library's bare ``except``.
    So it is raised again every second, until something unwinds.
    """
    global _listening
    _listening = True
    for number in _ASKING:
        signal.signal(number, _raise)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _say_unraisable


def received() -> int:
    """The number of the first signal; 0 while there was none."""
    return _received


def end() -> None:
    """What has ended is not interrupted any more: later signals are ignored.

    Python would set their default back while it closes down, and one that comes then would turn
    the exit code of finished work into another.
    """
    if _listening:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (*_ASKING, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)


def farewell(signal_number: int, then: str = "run the same command to go on") -> int:
    """Says the one line of a command that a signal ended; returns its exit code.

    ``then``: what is to be done, or has become of it.
    """
    end()
    interrupted = Interrupted(signal_number)
    with contextlib.suppress(OSError):  # whoever read it may be gone too
        print(f"interrupted by {interrupted}; {then}", file=sys.stderr)
    return interrupted.exit_code


def leave(code: int) -> NoReturn:
    """Ends an interrupted process, after all that Python does at its end, past what C++ does.

    A library whose import was interrupted may have begun a thread that its own end does not know
    of, and would abort the process.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its reader is gone, or it is closed
                stream.flush()
    finally:
        os._exit(code)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received, _since_s
    if not _received:
        _received, _since_s = number, time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
    _raise_unless_importing(frame)


def _raise_again(_number: int, frame: FrameType | None) -> None:
    if interruption_behind(sys.exc_info()[1]) is not None:
        return  # on its way: what is being cleared up must not be disturbed
    _raise_unless_importing(frame)


def _raise_unless_importing(frame: FrameType | None) -> None:
    """Waits for an import to end: C++ that is being loaded may abort the process otherwise."""
    if time.monotonic() - _since_s < _LOAD_S:
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _AGAIN_S)
                return
            frame = frame.f_back
    raise Interrupted(_received)


def _say_unraisable(what: Any) -> None:
    if not isinstance(what.exc_value, Interrupted):
        sys.__unraisablehook__(what)
