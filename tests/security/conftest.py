"""A web server of rasters, and secrets that must turn up nowhere."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import noise, write_raster

SECRETS = ("hunter2", "SIGNEDabc", "SESSIONxyz", "AKIAPLANTED", "wJalrPLANTED")
QUERY = "X-Amz-Signature=SIGNEDabc&X-Amz-Security-Token=SESSIONxyz"


class Files(http.server.BaseHTTPRequestHandler):
    """Files of a folder by GET and HEAD, with ranges; whatever else is asked is refused."""

    folder: Path

    def do_GET(self) -> None:
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, len(data) - 1
        if found:
            first, last = int(found[1]), min(last, int(found[2] or last))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever asked has read enough
            if self.command == "GET":
                self.wfile.write(data[first : last + 1])

    do_HEAD = do_GET

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[str]:
    """An address with user, password and signature, with ``{}`` for the file's name.

    There are city.tif, garbage.tif and short.tif.
    """
    folder = tmp_path / "served"
    folder.mkdir()
    city = write_raster(folder / "city.tif", noise(600, 600), tiled=True, compress="deflate")
    (folder / "garbage.tif").write_bytes(b"II*\0 and nothing that a TIFF would have")
    data = city.read_bytes()
    (folder / "short.tif").write_bytes(data[: len(data) // 2])
    handler = type("Served", (Files,), {"folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://user:hunter2@127.0.0.1:{server.server_port}/{{}}?{QUERY}"
        server.shutdown()
        thread.join()


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrPLANTED")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "SESSIONxyz")


def secrets_in(folder: Path, **texts: str) -> list[str]:
    """Where one of the secrets stands: in a file, in a name, or in a text."""
    found = []
    for path in folder.rglob("*"):
        text = str(path.relative_to(folder)).encode()
        if path.is_file():
            text += path.read_bytes()
        found += [f"{path}: {secret}" for secret in SECRETS if secret.encode() in text]
    for name, text in texts.items():
        found += [f"{name}: {text}" for secret in SECRETS if secret in text]
    return found
