"""Runs many commands, each in a process forked from one that has imported everything once.

A fork takes some 50 ms where a fresh interpreter takes seconds, so a corpus of hundreds of inputs
takes minutes. The server never opens a raster nor starts a thread, so that what it forks is sound.

    python -m tests.corpus.forks        one request a line on stdin, one answer a line on stdout
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

# What a hostile input may cost, the interpreter and torch (0.4 GB) included.
MAX_CPU_S = 5.0
MAX_BYTES = 10**9
# Beyond what is promised, so that the machine survives what breaks the promise.
_STOP_CPU_S = 20
_STOP_WALL_S = 90.0
_STOP_BYTES_MORE = 8 * 2**30
# All that `tilemapper render` loads on its way: whoever loads it in the fork does so hundreds of
# times, and took three times as long.
_PRELOAD = (
    "torch",
    "rasterio",
    "rasterio.shutil",
    "rasterio.vrt",
    "tilemapper.cli.main",
    "tilemapper.cli.models",
    "tilemapper.cli.render",
    "tilemapper.networks.weights",
    "tilemapper.render.render",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended. ``stopped``: it ran into a limit of the server's own."""

    code: int
    stdout: str
    stderr: str
    cpu_s: float
    peak_bytes: int
    stopped: bool = False

    @property
    def lines(self) -> list[str]:
        """What it said on stderr."""
        return self.stderr.splitlines()

    @property
    def errors(self) -> list[str]:
        """Its lines that begin with ``error: ``, without that; or click's ``Error: ``."""
        said = [line for line in self.lines if line.lower().startswith("error: ")]
        return [line[len("error: ") :] for line in said]

    def costs_too_much(self) -> str:
        """The limit that it broke, in words; empty when it kept all."""
        if self.stopped:
            return "did not end"
        if self.cpu_s > MAX_CPU_S:
            return f"{self.cpu_s:.1f} s of CPU"
        return f"{self.peak_bytes / 1e6:.0f} MB" if self.peak_bytes > MAX_BYTES else ""


@dataclass(frozen=True)
class Started:
    """A command that runs. ``ask``: sends a request to the server, its parent."""

    pid: int
    ask: Callable[[dict[str, Any]], dict[str, Any]]

    @property
    def runs(self) -> bool:
        """It has not ended."""
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"

    def wait(self, kill_after_s: float = _STOP_WALL_S) -> Ended:
        """Its end, by kill -9 after that time; nothing else is started meanwhile."""
        return Ended(**self.ask({"pid": self.pid, "kill_after_s": kill_after_s}))


class Forks:
    """A client of the fork server."""

    def __init__(self) -> None:
        one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.corpus.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | one,
            cwd=Path(__file__).parents[2],
        )

    def run(
        self,
        *arguments: object,
        cwd: Path,
        env: dict[str, str] | None = None,
        preload: tuple[str, ...] = (),
        code: str | None = None,
        kill_after_s: float = _STOP_WALL_S,
    ) -> Ended:
        """Runs ``tilemapper ARGUMENTS`` in ``cwd``; ``code``: runs this Python in its place.

        What has not ended ``kill_after_s`` after its fork gets kill -9.
        """
        started = self.start(*arguments, cwd=cwd, env=env, preload=preload, code=code)
        return started.wait(kill_after_s)

    def start(
        self,
        *arguments: object,
        cwd: Path,
        env: dict[str, str] | None = None,
        preload: tuple[str, ...] = (),
        code: str | None = None,
        unlimited: bool = False,
    ) -> Started:
        """Begins what `run` runs, and leaves it to the caller, who must wait for it.

        ``unlimited``: it may take any processor time, as what serves many tests does.
        """
        request = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": env or {},
            "preload": preload,
            "code": code,
            "unlimited": unlimited,
        }
        return Started(self._ask(request)["pid"], self._ask)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the fork server has died"
        answered: dict[str, Any] = json.loads(answer)
        return answered

    def close(self) -> None:
        """Ends the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()


def _serve() -> None:
    for name in _PRELOAD:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints by itself must not break the answers
    said: dict[int, tuple[IO[bytes], IO[bytes]]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            answer = _ended(request["pid"], *said.pop(request["pid"]), request["kill_after_s"])
        else:
            out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            answer = {"pid": _forked(request, out, err)}
            said[answer["pid"]] = out, err
        answers.write(json.dumps(answer) + "\n")


def _forked(request: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    for name in request["preload"]:
        importlib.import_module(name)
    tasks = list(Path("/proc/self/task").iterdir())
    assert len(tasks) == 1, f"{len(tasks)} threads: a fork of them could hang"
    child = os.fork()
    if child == 0:
        _become(request, out.fileno(), err.fileno())
    return child


def _ended(child: int, out: IO[bytes], err: IO[bytes], patience_s: float) -> dict[str, Any]:
    with out, err:
        code, usage, stopped = _wait(child, patience_s)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(10**7).decode(errors="replace"))
    return {
        "code": code,
        "stdout": texts[0],
        "stderr": texts[1],
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "stopped": stopped or code == -signal.SIGXCPU,
    }


def _wait(child: int, patience_s: float) -> tuple[int, Any, bool]:
    deadline = time.monotonic() + patience_s
    handle = os.pidfd_open(child)
    try:
        left_s = max(0.0, deadline - time.monotonic())
        stopped = not select.select([handle], [], [], left_s)[0]
        if stopped:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(status), usage, stopped


def _become(request: dict[str, Any], out: int, err: int) -> None:
    """Turns this fork into the command; never returns."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        own_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (own_bytes + _STOP_BYTES_MORE,) * 2)
        if not request["unlimited"]:
            resource.setrlimit(resource.RLIMIT_CPU, (_STOP_CPU_S, _STOP_CPU_S + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["tilemapper", *request["arguments"]]
        if request["code"] is None:
            from tilemapper.cli.main import main

            main()
        else:
            exec(compile(request["code"], "<case>", "exec"), {"__name__": "__case__"})
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@dataclass
class Listener:
    """A loopback port that counts who connects, and is the proxy of every command besides."""

    port: int = 0
    connections: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment by which requests to any address come here."""
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        nowhere = {"AWS_NO_SIGN_REQUEST": "YES", "AWS_EC2_METADATA_DISABLED": "true"}
        return {name: self.url for name in names} | {"no_proxy": "", "NO_PROXY": ""} | nowhere


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A `Listener` for as long as the block lasts; it answers 404 to everybody."""
    listener = Listener()
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener.port = server.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    head = connection.recv(4096).decode(errors="replace")
                    listener.connections.append(head.partition("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


class Watch:
    """Counts who opens certain files, by inotify: reading leaves no other trace."""

    _IN_OPEN = 0x20

    def __init__(self, *paths: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._handle >= 0
        self._names: dict[int, str] = {}
        for path in paths:
            watch = self._libc.inotify_add_watch(self._handle, os.fsencode(path), self._IN_OPEN)
            assert watch >= 0, f"{path}: cannot be watched"
            self._names[watch] = path.name

    def opened(self) -> list[str]:
        """Names of the files that were opened since the last call."""
        try:
            events = os.read(self._handle, 1 << 16)
        except BlockingIOError:
            return []
        names = []
        while events:
            watch, length = (
                int.from_bytes(events[:4], "little"),
                int.from_bytes(events[12:16], "little"),
            )
            names.append(self._names[watch])
            events = events[16 + length :]
        return names

    def close(self) -> None:
        """Stops watching."""
        os.close(self._handle)


if __name__ == "__main__":
    _serve()
