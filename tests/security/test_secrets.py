"""Passwords, signatures and keys turn up in no artefact, message or log."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archive.world import write_job
from tests.security.conftest import secrets_in
from tilemapper.cli.main import cli, keep_secrets, run
from tilemapper.render.journal import read_journal
from tilemapper.render.staging import staging_folder

pytestmark = pytest.mark.usefixtures("secretive")


def command(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a folder of its own, whose temporary files lie there too."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "tilemapper", *map(str, words)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_what_a_render_leaves_and_says_names_no_secret(
    signed, models, tmp_path, monkeypatch, capfd
):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    words = ["render", signed.format("city.tif"), "map.tif", "--model", str(models / "classes")]
    words += ["--classes", "classes.tif", "--report", "report.html", "--json", "-v"]
    assert run(cli, words) == 0
    out, err = capfd.readouterr()
    assert {"map.tif", "classes.tif", "report.html"} <= {path.name for path in work.iterdir()}
    assert not secrets_in(work, out=out, err=err)


@pytest.mark.parametrize("name", ["missing.tif", "garbage.tif", "short.tif"])
def test_an_error_names_the_raster_and_no_secret(signed, models, tmp_path, capfd, name):
    work = tmp_path / "work"
    words = ["render", signed.format(name), str(work / "map.tif"), "--model"]
    work.mkdir()
    assert run(cli, [*words, str(models / "identity")]) == 1
    out, err = capfd.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert f"{signed.split('@')[1].partition('/')[0]}/{name}" in err
    assert not secrets_in(work, out=out, err=err)


def test_wrong_usage_says_no_secret(signed, capfd):
    assert run(cli, ["models", "list", signed.format("city.tif")]) == 2
    out, err = capfd.readouterr()
    assert "Error: " in err
    assert not secrets_in(Path("/nowhere"), out=out, err=err)


def test_our_log_says_no_secret(signed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tilemapper", "render", signed.format("city.tif")])
    record = logging.makeLogRecord({"msg": "worker %s", "args": (signed.format("city.tif"),)})
    assert keep_secrets(record)
    assert not secrets_in(Path("/nowhere"), log=record.getMessage())
    assert "city.tif" in record.getMessage()


@pytest.mark.fault
@pytest.mark.parametrize(
    "words",
    [
        ("compare", "{}", "map.tif", "--out", "page.html"),
        ("info", "--doctor", "model", "{}"),
        ("render", "{}", "map.tif", "--dry-run"),
        ("pairs", "cut", "{}", "{}", "pairs"),
        ("evaluate", "model", "{}"),
        ("train", "{}", "--out", "run"),
        ("serve", "{}", "--port", "0"),
        ("verify", "{}"),
    ],
    ids=lambda words: words[0],
)
def test_no_other_command_says_a_secret(signed, models, tmp_path, words):
    """Whether it takes an address or refuses it."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "model").symlink_to(models / "identity")
    address = signed.format("garbage.tif")
    done = command(*(word.replace("{}", address) for word in words), folder=work)
    assert done.returncode != 0
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert not secrets_in(work, out=done.stdout, err=done.stderr)


@pytest.mark.fault
def test_an_unfinished_render_holds_no_secret(signed, models, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    target = work / "map.tif"
    words = ["render", signed.format("city.tif"), str(target), "--model", str(models / "slow")]
    run = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *words, "--block", "512", "--batch-size", "1",
         "--gsd", "native"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not read_journal(staging_folder(target) / "journal"):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 143
    kept = {path.name for path in staging_folder(target).iterdir()}
    assert {"plan.json", "journal"} <= kept
    assert not secrets_in(work, out=out, err=err)


@pytest.mark.fault
def test_an_archive_its_ledger_and_its_pages_hold_no_secret(signed, models, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    listed = tmp_path / "list.txt"
    names = ("city.tif", "garbage.tif", "short.tif", "missing.tif")
    listed.write_text("".join(f"{signed.format(name)}\n" for name in names))
    job = write_job(work, models / "identity", render='batch_size = 1\ngsd = "native"')
    job.write_text(
        job.read_text()
        .replace('["in"]', f'["{listed}"]')
        .replace('"out/{relpath}_map.tif"', '"out/{stem}_map.tif"')
    )
    for more in (("--json",), ("-v", "--metrics", "metrics.prom"), ("--retry-failed", "-q")):
        done = command("batch", job, *more, folder=work)
        assert done.returncode in (0, 3), done.stderr
        assert not secrets_in(work, out=done.stdout, err=done.stderr)
    shown = command("status", job, "--json", folder=work)
    assert not secrets_in(work, out=shown.stdout, err=shown.stderr)
    assert list(work.rglob("ledger.sqlite"))
    assert list(work.rglob("report.html"))
