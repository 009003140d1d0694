"""`tilemapper render` on a real small disk that fills up, and under ``ulimit -f``."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import learnt_scene
from tests.faults.injection import Driver
from tests.faults.oracle import Oracle
from tests.faults.table import count

SIZE = 8 << 20
FULL_CODES = (0, 75)


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request, tmp_path) -> Iterator[Path]:
    """A file system of 8 MiB; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)]
    else:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("no mkfs.ext4")
        image = tmp_path / "image"
        image.write_bytes(bytes(SIZE))
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(path: Path, leave: int) -> None:
    """Writes a file that leaves so many bytes free on its disk.

    What a disk says is free it need not give: some of it goes into its own tables. So the file
    grows until the disk is full, and is cut.
    """
    chunk = os.urandom(1 << 16)
    with path.open("wb", buffering=0) as ballast:
        try:
            while ballast.write(chunk) == len(chunk):
                pass
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
        ballast.truncate(max(0, ballast.tell() - leave))
        os.fsync(ballast.fileno())


def filled_disk(driver: Driver, oracle: Oracle, steps: int) -> tuple[int, list[str]]:
    """Renders with ever more room; how often the disk was full, and what was wrong."""
    ballast = oracle.folder.parent / "ballast"
    full, wrong = 0, []
    for step in range(steps):
        oracle.reset()
        fill(ballast, leave=step * (2 << 20) // steps)
        ended = driver.run(oracle.arguments)
        full += ended.code == 75
        said = oracle.complaints(ended, *FULL_CODES)
        ballast.unlink()
        said += oracle.go_on(driver)
        wrong += [f"step {step} of {steps}: {one}" for one in said]
    return full, wrong


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["plain", "gdal"])
def test_a_disk_that_is_full_at_any_point_costs_nothing(driver, models, small_disk, name, request):
    oracle = learnt_scene(name, small_disk, models, driver)
    full, wrong = filled_disk(driver, oracle, steps=30)
    kind = request.node.callspec.params["small_disk"]
    count(f"render: a full {kind} of 8 MiB, {name}", 30, len(wrong), f"full {full} times")
    assert full > 5
    assert not wrong, "\n".join(wrong)


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["plain", "gdal"])
def test_a_limit_on_the_size_of_files_is_told(driver, scenes, name):
    oracle, wrong, refused = scenes(name), [], 0
    oracle.reset()
    assert oracle.go_on(driver) == []
    largest = oracle.target.stat().st_size
    limits = [4096 + step * largest // 29 for step in range(30)]
    for limit in limits:
        oracle.reset()
        ended = driver.run(oracle.arguments, file_size=limit)
        refused += ended.code == 75
        said = oracle.complaints(ended, *FULL_CODES) + oracle.go_on(driver)
        wrong += [f"ulimit -f {limit} bytes: {one}" for one in said]
    count(f"render: ulimit -f, {name}", len(limits), len(wrong), f"refused {refused} times")
    assert refused > 10
    assert not wrong, "\n".join(wrong)
