"""Faults injected into a command at its nth write, fsync, rename, …: see ``shim.c``.

    with Driver(tmp_path) as driver:
        for ended in every_point(driver, arguments, folder=target.parent, fault=disk_full):
            check(ended)

`every_point` fails the 1st, 2nd, nth call until a run passes clean. The caller's oracle says, for
each point, whether what came of it may be.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntFlag
from pathlib import Path
from typing import Any, Self

import pytest

HERE = Path(__file__).parent
# What `tilemapper render` loads on its way, loaded once.
RENDER_MODULES = (
    "tilemapper.cli.main",
    "tilemapper.cli.render",
    "tilemapper.render.render",
    "tilemapper.networks.build",
    "rasterio.shutil",
    "rasterio.vrt",
)


class Kind(IntFlag):
    """The calls that the shim counts, on paths in the folder that it watches."""

    WRITE = 1
    FSYNC = 2
    RENAME = 4
    TRUNCATE = 8
    MKDIR = 16
    CREATE = 32
    UNLINK = 64
    READ = 128


CHANGES = Kind.WRITE | Kind.FSYNC | Kind.RENAME | Kind.TRUNCATE | Kind.MKDIR | Kind.CREATE
# An action of shim.c.
FAIL, FAIL_ON, SHORT, SHORT_FULL, KILL, TEAR, KILL_AFTER, FLIP, BAD_PAGE = range(1, 10)


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the nth call: once, or from then on."""

    name: str
    action: int
    error: int = 0
    kinds: Kind = CHANGES
    nth: int = 1

    @property
    def kills(self) -> bool:
        """Whether the process dies of it."""
        return self.action in (KILL, TEAR, KILL_AFTER)

    @property
    def codes(self) -> tuple[int, ...]:
        """The exit codes that the contract allows: full disks can be tried again, others not."""
        if self.kills:
            return (-9,)
        if self.name in FORGIVEN:
            # GDAL takes any short write for a full disk.
            return (0, 1, 75) if self.action == SHORT else (0, 1)
        return (75,) if self.error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else (1,)


DISK_FULL = Fault("disk full from then on", FAIL_ON, errno.ENOSPC)
DISK_FULL_ONCE = Fault("disk full once", FAIL, errno.ENOSPC)
QUOTA = Fault("quota used up", FAIL_ON, errno.EDQUOT)
DISK_ERROR = Fault("disk error once", FAIL, errno.EIO)
DISK_DEAD = Fault("disk error from then on", FAIL_ON, errno.EIO)
# A short write is no error: the rest must be written, or the error of the next write be told.
SHORT_WRITE = Fault("short write", SHORT, 0, Kind.WRITE)
SHORT_THEN_FULL = Fault("short write, then disk full", SHORT_FULL, errno.ENOSPC, Kind.WRITE)
KILLED = Fault("kill -9 before the call", KILL, 0, CHANGES | Kind.UNLINK)
KILLED_AFTER = Fault("kill -9 after the call", KILL_AFTER, 0, CHANGES | Kind.UNLINK)
TORN = Fault("kill -9 in the middle of a write", TEAR, 0, Kind.WRITE)
NOT_REMOVED = Fault("file not removed", FAIL, errno.EIO, Kind.UNLINK)
NOT_READ = Fault("read error once", FAIL, errno.EIO, Kind.READ)
SHORT_READ = Fault("short read", SHORT, 0, Kind.READ)
BIT_FLIPPED = Fault("one bit flipped on its way to the disk", FLIP, 0, Kind.WRITE)
# The nth page of a file, PAGE_BYTES long, whoever reads it and however often.
BAD_PLACE = Fault("page that cannot be read", BAD_PAGE, errno.EIO, Kind.READ)
PAGE_BYTES = 4096
# Faults after which the command may also end well, as long as its result is right.
FORGIVEN = frozenset(
    fault.name for fault in (SHORT_WRITE, NOT_REMOVED, NOT_READ, SHORT_READ, BIT_FLIPPED, BAD_PLACE)
)


@dataclass(frozen=True)
class Ended:
    """How a run ended: ``code`` is negative for a signal; ``fired`` calls were failed."""

    code: int
    out: str
    err: str
    fault: Fault | None
    fired: int = 0
    counted: int = 0
    kind: int = 0  # of the first call that was failed
    path: str = ""
    seconds: float = 0.0
    late: bool = False  # it had to be killed


@dataclass
class Driver:
    """A process with everything imported, that forks for each run; use ``with``.

    ``scratch`` is a folder outside of what the faults watch.
    """

    scratch: Path
    modules: Sequence[str] = RENDER_MODULES
    timeout_s: float = 60.0
    _process: Any = field(default=None, init=False)

    def __enter__(self) -> Self:
        shim = built_shim(self.scratch)
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", *self.modules],
            cwd=HERE.parent.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Forking a process that has threads would leave locks held for ever.
        assert self._answer()["threads"] == 1
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def run(
        self,
        arguments: Sequence[str | Path],
        fault: Fault | None = None,
        folder: Path | None = None,
        *,
        signal: tuple[float, int] | None = None,
        file_size: int | None = None,
        env: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Ended:
        """Runs ``tilemapper ARGUMENTS`` in a fork.

        Args:
            arguments: of the command line.
            fault: what to inject on paths in ``folder``; None for nothing.
            folder: the folder that is watched.
            signal: (seconds after the start, number) of a signal to send.
            file_size: ``ulimit -f`` in bytes.
            env: further environment.
            timeout_s: after which it is killed and counts as late.
        """
        out, err = self.scratch / "stdout", self.scratch / "stderr"
        order: dict[str, Any] = {
            "arguments": [str(argument) for argument in arguments],
            "stdout": str(out),
            "stderr": str(err),
            "cwd": str(self.scratch),
            "timeout_s": timeout_s or self.timeout_s,
            "env": env or {},
        }
        if fault is not None:
            assert folder is not None
            order["folder"] = str(folder)
            order["fault"] = {
                "kinds": int(fault.kinds),
                "nth": fault.nth,
                "action": fault.action,
                "error": fault.error,
            }
        if signal is not None:
            order["signal"] = signal
        if file_size is not None:
            order["file_size"] = file_size
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        said = self._answer()
        return Ended(
            out=out.read_text(errors="replace"),
            err=err.read_text(errors="replace"),
            fault=fault,
            **said,
        )


def built_shim(folder: Path) -> Path:
    """Compiles the shim into a folder, or skips the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    shim = folder / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), str(HERE / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return shim


def every_point(
    run: Callable[[Fault], Ended], fault: Fault, *, most: int = 2000, step: int = 1
) -> Iterator[Ended]:
    """Fails the 1st, 2nd, nth call until a run passes clean; yields each run that was hit.

    ``run`` brings its folder into the state to start from, and runs. ``step`` leaves points out,
    for a short selection.
    """
    for nth in range(1, most, step):
        ended = run(replace(fault, nth=nth))
        if not ended.fired:
            assert ended.code == 0, ended
            return
        yield ended
    raise AssertionError(f"{fault.name}: {most} calls failed, and still no clean run")
