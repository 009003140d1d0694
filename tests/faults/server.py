"""A web server that misbehaves as its addresses say, on the loopback interface.

    python -m tests.faults.server FOLDER      prints its port, ends when stdin does

    http://127.0.0.1:PORT/MODE/NUMBER/name.tif

serves ``FOLDER/name.tif``. NUMBER sets the counts of one address apart from those of others. Modes:

    good       ranges and all
    slow       waits before each answer, and between its parts
    flaky      every other answer is 500
    busy       every other answer is 429
    down       every answer is 500
    awakes     the first answer is 500
    away3      the third answer is 500, and the three after it: as often as GDAL asks
    lost3      hangs up in place of the third answer and the seven after it
    drops      hangs up in place of every other answer
    shut       500 for as long as FOLDER/shut exists, but to HEAD, as listings ask
    mute       hangs up for as long as FOLDER/shut exists, but on HEAD
    short      ends in the middle of every other answer
    cut        the file ends after two thirds, wherever it is asked for
    garbage    random bytes in place of what lies beyond the header
    swapped    after six answers, another file under the same name
    gone       after six answers, 404
    silent     takes the connection and never answers
    html       a page that says sorry, with 200
    plain      knows no ranges
"""

from __future__ import annotations

import collections
import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HEADER_BYTES = 4096
TURNS_AFTER = 6
GDAL_ASKS = 4  # times for what it needs, see `tilemapper.raster.opening`
SILENT_S = 600
ROOT = Path(__file__).parents[2]


class Server(ThreadingHTTPServer):
    """The folder, and how often each address was asked."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.asked: collections.Counter[str] = collections.Counter()
        self.lock = threading.Lock()

    def handle_error(self, *_arguments: object) -> None:
        """A client that went away is no news."""


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        _, mode, _, name = self.path.partition("?")[0].split("/", 3)
        with self.server.lock:
            self.server.asked[self.path] += 1
            turn = self.server.asked[self.path]
        if mode == "silent":
            time.sleep(SILENT_S)
        if mode == "slow":
            time.sleep(0.2)
        asleep = mode == "down" or (mode == "awakes" and turn == 1)
        if mode.startswith(("away", "lost")):
            # curl by itself asks once more where a connection that it had kept is hung up.
            asks = GDAL_ASKS if mode.startswith("away") else 2 * GDAL_ASKS
            asleep = 0 <= turn - int(mode[4:]) < asks
        asleep |= mode in ("shut", "mute") and body and (self.server.folder / "shut").exists()
        if (asleep and mode.startswith(("lost", "mute"))) or (mode == "drops" and turn % 2):
            self.close_connection = True
            return
        if asleep or (mode in ("flaky", "busy") and turn % 2):
            self._say(429 if mode == "busy" else 500, b"trouble")
            return
        if mode == "html":
            self._say(200, b"<html><body>Sorry, we are moving.</body></html>" * 50)
            return
        data = self._data(mode, name, turn)
        if data is None:
            self._say(404, b"not found")
            return
        start, end = self._range(len(data)) if mode != "plain" else (0, len(data))
        if start >= end:
            self._say(416, b"")
            return
        whole = "Range" not in self.headers or mode == "plain"
        self.send_response(200 if whole else 206)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hash(data)}"')
        if mode != "plain":
            self.send_header("Accept-Ranges", "bytes")
        if not whole:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if body:
            self._send(data[start:end], mode, turn)

    def _data(self, mode: str, name: str, turn: int) -> bytes | None:
        late = turn > TURNS_AFTER
        if mode == "gone" and late:
            return None
        if mode == "swapped" and late:
            name = f"other_{name}"
        path = self.server.folder / name
        if not path.is_file():
            return None
        data = path.read_bytes()
        if mode == "cut":
            return data[: len(data) * 2 // 3]
        if mode == "garbage":
            noise = random.Random(turn).randbytes(max(0, len(data) - HEADER_BYTES))
            return data[:HEADER_BYTES] + noise
        return data

    def _range(self, size: int) -> tuple[int, int]:
        asked = self.headers.get("Range", "")
        first, _, last = asked.removeprefix("bytes=").partition("-")
        if not first.isdecimal():
            return 0, size
        return int(first), min(size, int(last) + 1 if last.isdecimal() else size)

    def _send(self, data: bytes, mode: str, turn: int) -> None:
        if mode == "slow":
            for place in range(0, len(data), 16384):
                self.wfile.write(data[place : place + 16384])
                time.sleep(0.05)
        elif mode == "short" and turn % 2:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self.wfile.write(data)

    def _say(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server of a folder, in a process of its own; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.server", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


if __name__ == "__main__":
    with Server(Path(sys.argv[1])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()
