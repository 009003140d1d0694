"""A process that may have no more files, threads or memory: told as such, and no scene's fault."""

from __future__ import annotations

import errno
import os
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

FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "city.tif")
THREADS = RuntimeError("can't start new thread")
MEMORY = MemoryError("Unable to allocate 984. KiB")
TORCH = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3145728")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FILES, 75, "city.tif: Too many open files; allow more with ulimit -n"),
        (THREADS, 75, "no more threads may be started here; allow more with ulimit -u"),
        (MEMORY, 1, "not enough memory (Unable to allocate 984. KiB); free some"),
        (TORCH, 1, "not enough memory (DefaultCPUAllocator: can't allocate memory"),
        (MemoryError(), 1, "not enough memory (MemoryError); free some"),
    ],
    ids=["files", "threads", "memory", "torch's", "without words"],
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
