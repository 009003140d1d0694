"""Whatever runs listens on the loopback interface only, all its processes together."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.archive.world import write_archive, write_job
from tests.faults.table import count
from tests.training.synthetic_pairs import TINY
from tilemapper.errors import OptionError
from tilemapper.render.stream import stream
from tilemapper.serve.binding import bind

# Of a network so small that a step takes no minute on a busy machine.
TINY_WORDS = [f"--set={key}={value}" for key, value in TINY.items()]


def sockets(top: psutil.Process) -> set[tuple[str, int]]:
    """Addresses and ports at which a process and all below it listen, or take datagrams."""
    found: set[tuple[str, int]] = set()
    with contextlib.suppress(psutil.Error):
        for process in [top, *top.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                for link in process.net_connections(kind="inet"):
                    datagrams = link.type == socket.SOCK_DGRAM and not link.raddr
                    if link.status == psutil.CONN_LISTEN or datagrams:
                        found.add((link.laddr.ip, link.laddr.port))
    return found


def listening(top: psutil.Process) -> set[str]:
    """The addresses of `sockets`."""
    return {address for address, _ in sockets(top)}


def outside(addresses: set[str]) -> set[str]:
    return {at for at in addresses if not ipaddress.ip_address(at).is_loopback}


@contextlib.contextmanager
def watched(process: subprocess.Popen) -> Iterator[set[str]]:
    """Looks all the time while a command runs; then it is ended."""
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while it was looked at
                seen.update(listening(psutil.Process(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def tilemapper(*words: str | Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *map(str, words)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_watch_sees_a_socket_that_is_open_to_others():
    """The oracle itself: without this, it would find nothing wherever it looked."""
    with socket.socket() as open_to_all, socket.socket() as inside:
        open_to_all.bind(("0.0.0.0", 0))
        inside.bind(("127.0.0.1", 0))
        for one in (open_to_all, inside):
            one.listen()
        seen = listening(psutil.Process())
    assert outside(seen) == {"0.0.0.0"}
    assert "127.0.0.1" in seen


def test_a_page_for_others_needs_public():
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        with pytest.raises(OptionError, match="--public"):
            bind(host, 0, public=False)


def test_a_stream_and_a_render_in_this_process_listen_nowhere(make_raster, models, tmp_path):
    before = sockets(psutil.Process())  # of other tests, which may be closed meanwhile
    for _ in stream(make_raster(600, 600), models / "identity", block=512):
        assert sockets(psutil.Process()) <= before


@pytest.mark.fault
@pytest.mark.parametrize("more", [(), ("--dashboard",)], ids=["plain", "dashboard"])
def test_workers_of_a_render_listen_on_loopback_only(make_raster, models, tmp_path, more):
    if more:
        pytest.importorskip("bokeh")
    source = make_raster(1500, 1500)
    words = ("render", source, "map.tif", "--model", models / "slow", "--block", "512")
    process = tilemapper(*words, "--workers", "2", *more, folder=tmp_path)
    with watched(process) as seen:
        assert process.wait(timeout=120) == 0
    count(f"sockets: render --workers {' '.join(more)}".strip(), len(seen), len(outside(seen)))
    assert seen
    assert not outside(seen)


@pytest.mark.fault
def test_workers_of_an_archive_listen_on_loopback_only(models, tmp_path):
    write_archive(tmp_path / "in", 8, size=600)
    job = write_job(tmp_path, models / "slow", render="batch_size = 1")
    process = tilemapper("batch", job, "--workers", "2", "--json", folder=tmp_path)
    with watched(process) as seen:
        assert process.wait(timeout=200) == 0
    count("sockets: batch --workers", len(seen), len(outside(seen)))
    assert seen
    assert not outside(seen)


@pytest.mark.fault
def test_the_page_listens_on_loopback_only(make_raster, models, tmp_path):
    words = ("serve", make_raster(300, 300), "--model", models / "identity", "--port", "0")
    process = tilemapper(*words, folder=tmp_path)
    with watched(process) as seen:
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(5)
    count("sockets: serve", len(seen), len(outside(seen)))
    assert seen
    assert not outside(seen)


@pytest.mark.fault
@pytest.mark.parametrize("command", ["render", "train", "models"])
def test_what_has_no_workers_listens_nowhere(make_raster, models, tmp_path, command):
    words = {
        "render": ("render", make_raster(600, 600), "map.tif", "--model", models / "slow"),
        "train": ("train", "pairs", "--out", "run", "--budget-minutes", "0.2", *TINY_WORDS),
        "models": ("models", "list"),
    }[command]
    if command == "train":
        for step in (("sample", "a.tif", "--truth", "b.tif", "--size", "1024"),
                     ("pairs", "cut", "a.tif", "b.tif", "pairs")):  # fmt: skip
            made = tilemapper(*step, folder=tmp_path)
            made.communicate(timeout=120)
            assert made.returncode == 0
    process = tilemapper(*words, folder=tmp_path)
    with watched(process) as seen:
        process.wait(timeout=200)
    count(f"sockets: {command}", 1, len(seen), "listens nowhere")
    assert process.returncode == 0
    assert seen == set()
