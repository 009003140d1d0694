"""A server's own folder: whose it is, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tilemapper.serve import scratch
from tilemapper.serve.scratch import Scratch

HOLD = "from tilemapper.serve.scratch import Scratch; print(Scratch().path, flush=True); input()"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_empty_private_and_gone_at_the_end(temporary):
    own = Scratch()
    assert list(temporary.iterdir()) == [own.path]
    assert own.path.stat().st_mode & 0o777 == 0o700
    (own.path / "upload-1").write_bytes(b"a photograph")
    own.close()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_server_is_removed_by_the_next_that_of_a_living_one_stays(temporary):
    server = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        theirs = Path(server.stdout.readline().strip())
        (theirs / "upload-1").write_bytes(b"a photograph")
        first = Scratch()
        assert (theirs / "upload-1").exists()
        server.send_signal(signal.SIGKILL)
    second = Scratch()
    assert sorted(temporary.iterdir()) == sorted([first.path, second.path])
    for own in (first, second):
        own.close()


def test_what_only_has_such_a_name_stays(temporary):
    outside = temporary / "mine"
    outside.mkdir()
    (outside / "map.tif").touch()
    (temporary / "tilemapper-serve-link").symlink_to(outside)
    (temporary / "tilemapper-serve-file").touch()
    Scratch().close()
    assert (outside / "map.tif").exists()
    assert len(list(temporary.iterdir())) == 3


def test_a_folder_that_another_server_removes_meanwhile_ends_no_start(temporary, monkeypatch):
    class Gone(type(temporary)):
        def glob(self, pattern):
            found = list(super().glob(pattern))
            for path in found:
                path.rmdir()
            return iter(found)

    (temporary / "tilemapper-serve-1-abc").mkdir()
    monkeypatch.setattr(scratch, "Path", Gone)
    own = Scratch()
    assert [Path(path) for path in temporary.iterdir()] == [own.path]
    own.close()


def test_servers_that_start_and_end_at_once_keep_theirs(temporary):
    def serve(_: int) -> bool:
        own = Scratch()
        (own.path / "upload-1").touch()
        whole = (own.path / "upload-1").exists()
        own.close()
        return whole

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(serve, range(400)))
    assert list(temporary.iterdir()) == []
