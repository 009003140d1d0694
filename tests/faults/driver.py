"""Runs ``tilemapper`` again and again, each time in a fork of a process that has imported it.

Started by `tests.faults.injection.Driver` with the shim loaded; reads one JSON object a line from
stdin and answers with one on stdout. Starting Python and importing torch takes seconds, a fork
takes milliseconds: so hundreds of faults can be tried.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import mmap
import os
import resource
import select
import signal
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

# counted, fired, kind, path: as struct report of shim.c
REPORT = struct.Struct("lii256s")
SHARED = mmap.mmap(-1, 4096)


def answer(order: dict[str, Any], shim: ctypes.CDLL) -> dict[str, Any]:
    """One run in a fork: how it ended, and what the shim did to it."""
    SHARED[: REPORT.size] = bytes(REPORT.size)
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = child(order, shim)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    status, late = watched(pid, order, begun)
    counted, fired, kind, path = REPORT.unpack(SHARED[: REPORT.size])
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - begun,
        "late": late,
        "counted": counted,
        "fired": fired,
        "kind": kind,
        "path": path.rstrip(b"\0").decode(errors="replace"),
    }


def watched(pid: int, order: dict[str, Any], begun: float) -> tuple[int, bool]:
    """Waits for the child, sends it the signal that was asked for; kills it when it takes long."""
    deadline = begun + order["timeout_s"]
    after, number = order.get("signal", (None, 0))
    descriptor = os.pidfd_open(pid)
    try:
        if after is not None and not select.select([descriptor], [], [], after)[0]:
            os.kill(pid, number)
        left = max(0.0, deadline - time.monotonic())
        late = not select.select([descriptor], [], [], left)[0]
        if late:
            os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1], late
    finally:
        os.close(descriptor)


def child(order: dict[str, Any], shim: ctypes.CDLL) -> int:
    """The command, from its entry point to its exit code, in the forked process."""
    for number, name in ((0, os.devnull), (1, order["stdout"]), (2, order["stderr"])):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number else 0))
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.update(order.get("env", {}))
    os.chdir(order["cwd"])
    if "file_size" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], order["file_size"]))
    sys.argv = ["tilemapper", *order["arguments"]]
    fault = order.get("fault")
    if fault is not None:
        where = order["folder"].encode()
        page = ctypes.addressof(ctypes.c_char.from_buffer(SHARED))
        shim.fault_arm(
            where,
            fault["kinds"],
            ctypes.c_long(fault["nth"]),
            fault["action"],
            fault["error"],
            ctypes.c_void_p(page),
        )
    from tilemapper.cli.main import main

    try:
        main()
    except SystemExit as ended:
        code = ended.code
        # What the interpreter does at its end, as far as it can go wrong.
        threading._shutdown()  # type: ignore[attr-defined]
        return code if isinstance(code, int) else int(code is not None)
    return 0  # main never returns


def serve() -> None:
    """Answers until stdin ends."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    # What the child starts itself (a worker, a decoder) is not to load the shim.
    del os.environ["LD_PRELOAD"]
    print(json.dumps({"threads": len(list(Path("/proc/self/task").iterdir()))}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), shim)), flush=True)


if __name__ == "__main__":
    serve()
