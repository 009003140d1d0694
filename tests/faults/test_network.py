"""A cluster over hosts with networks of their own, whose cables are pulled: nothing is answered.

A killed process closes its connections, and the other side knows at once. A cable that is pulled
says nothing to anybody. Hosts are network namespaces that see neither the target nor the models;
they speak TLS on an address that is not the loopback's. Needs root, for the namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from distributed.security import Security

from tests.faults import test_workers_deaths as deaths
from tests.faults.table import count
from tests.faults.test_workers_deaths import Run, start, watched
from tilemapper.render.journal import read_journal
from tilemapper.render.staging import staging_folder

scene, expected = deaths.scene, deaths.expected  # fixtures

NET = "10.213.77"  # the scheduler's and the client's is .1
SCHEDULER = f"tls://{NET}.1:8786"
BRIDGE = "tm-bridge"
HOSTS = ("tm-a", "tm-b")
FIRST_BLOCKS = 3  # that stand before anything happens
BLINK_S = 8.0

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


@pytest.fixture(scope="module")
def cables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two hosts on one bridge, for one process of a run of the tests at a time."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces need root, ip and unshare")
    with (tmp_path_factory.getbasetemp().parent / "cables.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        try:
            ip("addr", "add", f"{NET}.1/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for number, host in enumerate(HOSTS, 2):
                ip("netns", "add", host)
                ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
                ip("link", "set", host, "master", BRIDGE, "up")
                ip("-n", host, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
                ip("-n", host, "link", "set", "eth0", "up")
                ip("-n", host, "link", "set", "lo", "up")
            yield
        finally:
            for host in HOSTS:
                ip("netns", "del", host, check=False)
                ip("link", "del", host, check=False)
            ip("link", "del", BRIDGE, check=False)


def pull(*hosts: str) -> None:
    for host in hosts:
        ip("link", "set", host, "down")


def plug(*hosts: str) -> None:
    for host in hosts:
        ip("link", "set", host, "up")


class Cluster:
    """A scheduler here, workers on the hosts."""

    def __init__(self, folder: Path, hidden: tuple[Path, ...]) -> None:
        self.target, self.hidden = folder / "out" / "map.tif", (folder / "out", *hidden)
        self.target.parent.mkdir()
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **certificates(folder)}
        self.log = (folder / "log").open("w")
        self.runs = [
            self.process("dask_scheduler", f"--host=tls://{NET}.1", "--port=8786",
                         "--dashboard-address=127.0.0.1:0")
        ]  # fmt: skip
        time.sleep(2)
        self.add(*HOSTS)

    def process(self, name: str, *options: str, aside: tuple[str, ...] = ()) -> subprocess.Popen:
        command = [*aside, sys.executable, "-m", f"distributed.cli.{name}", *options]
        return subprocess.Popen(command, stdout=self.log, stderr=self.log, env=self.environment)

    def add(self, *hosts: str) -> None:
        """A worker on each."""
        covers = " && ".join(f"mount -t tmpfs none '{path}'" for path in self.hidden)
        for host in hosts:
            aside = ("ip", "netns", "exec", host, "unshare", "-m", "sh", "-c")
            aside += (f'{covers} && exec "$@"', "sh")
            options = (
                SCHEDULER,
                "--nthreads=1",
                "--memory-limit=0",
                "--no-nanny",
                "--no-dashboard",
            )
            self.runs.append(self.process("dask_worker", *options, aside=aside))

    def close(self) -> None:
        for run in self.runs:
            run.kill()
            run.wait()
        self.log.close()


def certificates(folder: Path) -> dict[str, str]:
    """Dask's settings for TLS, with certificates made for this test."""
    made = Security.temporary()
    (folder / "ca.pem").write_text(str(made.tls_ca_file))
    (folder / "me.pem").write_text(f"{made.tls_client_key}\n{made.tls_client_cert}")
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    names = {f"{prefix}CA_FILE": str(folder / "ca.pem")}
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        names[f"{prefix}{role}__CERT"] = names[f"{prefix}{role}__KEY"] = str(folder / "me.pem")
    return names


@pytest.fixture
def cluster(cables: None, models: Path, tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path, (models,))
    try:
        yield running
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            plug(*HOSTS)
        running.close()


def run(
    cluster: Cluster, scene: Path, models: Path, event: Callable[[], None] = lambda: None
) -> Run:
    """A render over the cluster, and its seconds from ``event`` on, when the first blocks stand."""
    journal, begun = staging_folder(cluster.target) / "journal", time.monotonic()
    come_s: list[float] = []

    def meanwhile() -> None:
        if not come_s and len(read_journal(journal)) >= FIRST_BLOCKS:
            come_s.append(time.monotonic() - begun)
            event()

    options = ("--scheduler", SCHEDULER, "--overwrite")
    command = start(scene, cluster.target, models, cluster.environment, *options)
    ended = watched(command, cluster.target, meanwhile)
    assert come_s, ended
    return replace(ended, seconds=ended.seconds - come_s[0])


def counted(name: str, ended: Run, expected: str, codes: tuple[int, ...] = (0,)) -> None:
    fault = ended.fault(expected)
    wrong = fault is not None or ended.code not in codes
    count(f"network: {name}", 1, int(wrong), f"ended {ended.seconds:.0f} s after")
    assert fault is None
    assert ended.code in codes, ended.said


def test_hosts_that_see_the_source_alone_make_the_same_bytes(cluster, scene, models, expected):
    counted("hosts without model and target", run(cluster, scene, models), expected)


def test_a_host_that_falls_silent_costs_its_blocks_alone(cluster, scene, models, expected):
    counted("one of two hosts cut off", run(cluster, scene, models, lambda: pull("tm-a")), expected)


def test_a_network_that_blinks_costs_nothing(cluster, scene, models, expected):
    def blink() -> None:
        pull(*HOSTS)
        time.sleep(BLINK_S)
        plug(*HOSTS)

    counted(f"all hosts gone for {BLINK_S:.0f} s", run(cluster, scene, models, blink), expected)


def test_when_all_hosts_are_silent_it_ends_and_goes_on_later(cluster, scene, models, expected):
    ended = run(cluster, scene, models, lambda: pull(*HOSTS))
    counted("all hosts cut off", ended, expected, codes=(75,))
    plug(*HOSTS)
    cluster.add(*HOSTS)  # as whoever looks after the hosts would, where dask has ended its workers
    counted("the same, gone on with", run(cluster, scene, models), expected)
