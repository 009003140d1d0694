"""A process that may have no more files, threads or memory: told as such, and no scene's fault."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.archive.world import write_job
from tests.faults.oracle import write_source
from tilemapper.archive import worker
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.run import run_archive
from tilemapper.cli.main import run
from tilemapper.errors import ShortageError
from tilemapper.networks.model import open_model
from tilemapper.raster import atomic, opening
from tilemapper.raster.atomic import write_text_atomic
from tilemapper.raster.drivers import driver_of
from tilemapper.raster.opening import open_raster
from tilemapper.render.render import render

FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "city.tif")
THREADS = RuntimeError("can't start new thread")
MEMORY = MemoryError("Unable to allocate 984. KiB")
TORCH = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3145728")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FILES, 75, "city.tif: Too many open files; allow more with ulimit -n"),
        (OSError(errno.ENFILE, "of a library"), 75, "this process: Too many open files; allow"),
        (THREADS, 75, "no more threads may be started here; allow more with ulimit -u"),
        (MEMORY, 1, "not enough memory (Unable to allocate 984. KiB); free some"),
        (TORCH, 1, "not enough memory (DefaultCPUAllocator: can't allocate memory"),
        (MemoryError(), 1, "not enough memory (MemoryError); free some"),
    ],
    ids=["files", "files of all", "threads", "memory", "torch's", "without words"],
)
def test_a_command_says_what_is_short(capsys, error, code, words):
    @click.command()
    def work():
        raise error

    assert run(work, []) == code
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1 and "defect" not in said


@pytest.mark.parametrize("error", [FILES, THREADS], ids=["files", "threads"])
def test_an_archive_stops_for_later_and_fails_no_scene(tmp_path, models, monkeypatch, error):
    (tmp_path / "in").mkdir()
    for index in range(3):
        write_source(tmp_path / "in" / f"city_{index}.tif", 40, 60 + index)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    model, usual, calls = open_model(job.render.model), worker.render, []

    def short(*args, **kw):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return usual(*args, **kw)

    monkeypatch.setattr(worker, "render", short)
    summary = run_archive(job, model)
    assert (summary.done, summary.failed, summary.left, summary.exit_code) == (1, 0, 2, 75)
    assert "allow more with ulimit" in summary.stopped
    summary = run_archive(job, model)
    assert (summary.done, summary.already_done, summary.exit_code) == (2, 1, 0)


def test_memory_that_one_scene_lacks_fails_this_scene_alone(tmp_path, models, monkeypatch):
    (tmp_path / "in").mkdir()
    for index in range(2):
        write_source(tmp_path / "in" / f"city_{index}.tif", 40, 60 + index)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    usual = worker.render

    def short(source, *args, **kw):
        if source.endswith("city_0.tif"):
            raise MEMORY
        return usual(source, *args, **kw)

    monkeypatch.setattr(worker, "render", short)
    summary = run_archive(job, open_model(job.render.model))
    assert (summary.done, summary.failed, summary.exit_code) == (1, 1, 3)
    assert "not enough memory" in summary.failures[0]["error"]
    assert "defect" not in summary.failures[0]["error"]


@pytest.mark.parametrize("opened", [driver_of, worker.head_sha256])
def test_a_source_is_not_at_fault_for_the_files_that_are_open(tmp_path, monkeypatch, opened):
    source = write_source(tmp_path / "city.tif", 40, 60)

    def none_left(*_args, **_kw):
        raise FILES

    monkeypatch.setattr(Path, "open", none_left)
    with pytest.raises(ShortageError, match="ulimit -n"):
        opened(str(source))


@pytest.mark.parametrize("at", ["source", "target"])
def test_what_cannot_be_opened_for_too_many_files_is_no_bad_path(tmp_path, monkeypatch, at):
    def none_left(_path):
        raise FILES

    if at == "source":
        source = write_source(tmp_path / "city.tif", 40, 60)
        monkeypatch.setattr(opening, "check_directories", none_left)
        with pytest.raises(ShortageError, match="ulimit -n"):
            open_raster(str(source))
    else:
        monkeypatch.setattr(atomic, "fsync_file", none_left)
        with pytest.raises(ShortageError, match="ulimit -n"):
            write_text_atomic(tmp_path / "a.txt", "x")


# Each way in which GDAL opens or writes a file, with room for 0, 1, 2 ... files more.
FEW_FILES = """
import os, resource, sys
from pathlib import Path
import rasterio.shutil
from tilemapper.errors import ShortageError
from tilemapper.raster.gdal_writing import gdal_writes
from tilemapper.raster.opening import open_raster
from tilemapper.render.render import render
from tilemapper.render.verify import verify

target, copy = sys.argv[1], Path(sys.argv[1]).with_name("copy.tif")

def opens():
    open_raster(target).close()

def verifies():
    assert verify(target, blocks=0).ok

def writes():
    with gdal_writes(copy):
        rasterio.shutil.copy(target, str(copy), driver="GTiff")

for work in (opens, verifies, writes):
    work()  # loads what is loaded at the first time
    ended = []
    for more in range(1, 13):
        top = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + more, 1024))
        try:
            work()
            ended.append("done")
        except ShortageError as error:
            assert "Too many open files; allow more with ulimit -n, then run" in str(error)
            ended.append("short")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    assert {*ended} == {"short", "done"}, (work.__name__, ended)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_gdal_too_says_too_many_open_files_and_nothing_is_called_damaged(tmp_path, models):
    source, target = write_source(tmp_path / "city.tif", 600, 700), tmp_path / "map.tif"
    render(source, target, model=models / "identity")
    command = [sys.executable, "-W", "ignore", "-c", FEW_FILES, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
