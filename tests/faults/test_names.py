"""Odd names, folders that may not be written, and clocks that go backwards, for all commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.archive.world import without_privileges, write_job
from tests.conftest import read_raster
from tests.faults.oracle import check_map, painted, write_source
from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.run import run_archive
from tilemapper.cli.main import cli, run
from tilemapper.networks.model import open_model

NAMES = ["straße 東京 🗺", "line\nbreak", "-dash", "a" * 200, " space ", "50% #?&", "'quote\"", "é"]
TINY_WORDS = [f"--set={key}={value}" for key, value in TINY.items()] + ["--set=trainer.steps=1"]


def commands(place: Path, models: Path, name: str) -> dict[str, tuple[list[str], Path]]:
    """The commands that write, each with the path that it is to make."""
    city = write_source(place / "city.tif", 64, 64)
    pairs = place / "data"
    if not pairs.exists():
        write_pairs(pairs, 4)
    target, run_folder, cut = place / f"{name}.tif", place / f"{name}-run", place / f"{name}-pairs"
    render = ["render", str(city), str(target), "--model", str(models / "identity"), "-q"]
    return {
        "render": ([*render, "--gsd", "native"], target),
        "train": (["train", str(pairs), "--out", str(run_folder), *TINY_WORDS], run_folder),
        "pairs cut": (["pairs", "cut", str(city), str(city), str(cut), "--tile", "32"], cut),
    }


def ends(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    code = run(cli, arguments)
    return code, capsys.readouterr().err


def one_line(err: str) -> bool:
    return err.startswith("error: ") and err.count("\n") == 1 and "defect" not in err


@pytest.mark.parametrize("name", NAMES)
def test_a_map_of_any_name_is_right(tmp_path, models, capsys, name):
    arguments, target = commands(tmp_path, models, name)["render"]
    assert ends(arguments, capsys) == (0, "")
    check_map(target, painted(64, 64), None)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["city.tif", "data", target.name])


@pytest.mark.fault
@pytest.mark.parametrize("command", ["train", "pairs cut"])
@pytest.mark.parametrize("name", NAMES)
def test_runs_and_pairs_of_any_name_are_right(tmp_path, models, capsys, command, name):
    arguments, target = commands(tmp_path, models, name)[command]
    assert ends(arguments, capsys) == (0, "")
    made = {path.name for path in target.iterdir()}
    assert {"config.toml", "model"} <= made if command == "train" else {"A", "B"} <= made


@pytest.mark.parametrize("command", ["render", "train", "pairs cut"])
def test_a_name_that_is_too_long_is_one_line(tmp_path, models, capsys, command):
    arguments, _ = commands(tmp_path, models, "x" * 300)[command]
    code, err = ends(arguments, capsys)
    assert code == 1 and one_line(err), err
    assert not any(path.name.startswith("xxx") for path in tmp_path.iterdir())


@pytest.mark.parametrize("command", ["render", "train", "pairs cut"])
@pytest.mark.parametrize("kind", ["a file on the way", "a file", "a folder with files"])
def test_a_place_that_is_something_else_is_left_alone(tmp_path, models, capsys, command, kind):
    arguments, target = commands(tmp_path, models, "out")[command]
    if kind == "a file on the way":
        place = tmp_path / "file"
        place.write_text("mine")
        moved = place / "below" / target.name
        arguments = [str(moved) if word == str(target) else word for word in arguments]
    elif kind == "a file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    code, err = ends(arguments, capsys)
    assert code == 1 and one_line(err), err
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert len(kept) == 1


@pytest.mark.fault
@pytest.mark.parametrize("command", ["render", "train", "pairs cut"])
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, models, command):
    prefix = without_privileges()
    if prefix is None:
        pytest.skip("file rights do not hold for root here")
    place = tmp_path / "place"
    place.mkdir()
    arguments, target = commands(place, models, "out")[command]
    place.chmod(0o555)
    try:
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "tilemapper", *arguments], capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    finally:
        place.chmod(0o755)
    assert done.returncode == 1 and one_line(done.stderr), done.stderr
    assert not target.exists()


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Nowhere/At_All", ":/etc/passwd", ""])
def test_an_archive_in_an_odd_time_zone_is_done_once(tmp_path, models, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (tmp_path / "in").mkdir()
        write_source(tmp_path / "in" / "city.tif", 40, 60)
        job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
        assert run_archive(job, open_model(job.render.model)).done == 1
        assert run_archive(job, open_model(job.render.model)).already_done == 1
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_archive_survives_a_clock_that_is_set_back(tmp_path, models, monkeypatch):
    """A day back in the middle of a run, and a year back before the next one."""
    (tmp_path / "in").mkdir()
    for index in range(4):
        write_source(tmp_path / "in" / f"city_{index}.tif", 40, 60 + index)
    job = load_job(
        write_job(tmp_path, models / "identity", render='batch_size = 1\ngsd = "native"')
    )
    real, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])

    def tell(event):
        if event.get("state") == "done":
            shift[0] -= 86_400.0

    summary = run_archive(job, open_model(job.render.model), tell=tell)
    assert (summary.done, summary.failed, summary.left) == (4, 0, 0)
    shift[0] = -3.2e7
    write_source(tmp_path / "in" / "new.tif", 40, 80)
    # A source from the future, as the clock has it, is a source all the same.
    os.utime(tmp_path / "in" / "city_0.tif", (real() + 1e6, real() + 1e6))
    summary = run_archive(job, open_model(job.render.model))
    assert (summary.done, summary.failed, summary.already_done) == (2, 0, 3)
    for index in range(4):
        np.testing.assert_array_equal(
            read_raster(job.root / f"city_{index}_map.tif"), painted(40, 60 + index)
        )
