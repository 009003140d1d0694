"""Scenes and folders that may not be read or written, with rights that hold for root too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive.world import BOUNDS, poison, without_privileges, write_archive, write_job
from tilemapper.cli.main import cli, run

PREFIX = without_privileges()
pytestmark = pytest.mark.skipif(PREFIX is None, reason="root without setpriv: no right holds")


def batch(job: Path) -> tuple[int, dict, str]:
    """Exit code, summary and stderr of a run for which file rights hold."""
    assert PREFIX is not None
    command = [*PREFIX, sys.executable, "-m", "tilemapper", "batch", str(job), "--json", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1])["summary"] if lines else {}, done.stderr


def test_what_may_not_be_read_is_named_and_rendered_once_it_may(tmp_path, models, capsys):
    write_archive(tmp_path / "in", 3)
    words = poison(tmp_path / "in" / "bad", rights_hold=True)
    write_archive(tmp_path / "in" / "closed", 1)
    (tmp_path / "in" / "closed").chmod(0)
    words["closed"] = "cannot be listed"
    job = write_job(
        tmp_path, models / "identity", render=f"batch_size = 1\nbounds = {list(BOUNDS)}"
    )
    code, summary, _ = batch(job)
    assert (code, summary["done"], summary["failed"]) == (3, 3, 11)
    reasons = {Path(f["scene"]).stem.partition("\\")[0]: f["error"] for f in summary["failures"]}
    assert {stem for stem, word in words.items() if word in reasons[stem]} == set(words)
    assert "Permission denied" in reasons["unreadable"]
    (tmp_path / "in" / "bad" / "unreadable.tif").chmod(0o644)
    (tmp_path / "in" / "closed").chmod(0o755)
    capsys.readouterr()
    code = run(cli, ["batch", str(job), "--json", "-q"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert (code, summary["done"], summary["failed"]) == (3, 2, 9)


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, models):
    write_archive(tmp_path / "in", 1)
    job = write_job(tmp_path, models / "identity", render="batch_size = 1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o555)
    code, _, err = batch(job)
    assert code == 1
    assert "out/.tilemapper" in err
    assert "Permission denied" in err
    assert err.count("\n") == 1


def test_one_who_may_only_read_sees_the_status_of_an_archive(tmp_path, models):
    """The ledger's log, which reading needs, lies beside it only while a run is at work."""
    write_archive(tmp_path / "in", 1)
    job = write_job(tmp_path, models / "identity", render="batch_size = 1")
    assert run(cli, ["batch", str(job), "-q"]) == 0
    folder = tmp_path / "out" / ".tilemapper" / "nightly"
    assert not list(folder.glob("*-wal"))
    folder.chmod(0o555)
    (folder / "ledger.sqlite").chmod(0o444)
    assert PREFIX is not None
    command = [*PREFIX, sys.executable, "-m", "tilemapper", "status", str(job), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["done"] == 1


def killed_without_wal(ledger: Path) -> None:
    """A run on a network's disk that was killed while SQLite wrote its change into the ledger."""
    words = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "db.execute('PRAGMA journal_mode=DELETE'); db.execute('PRAGMA cache_size=1'); "
        "db.execute('BEGIN'); db.execute('UPDATE scenes SET error=hex(randomblob(30000))'); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", words, str(ledger)], check=False)
    assert ledger.with_name(ledger.name + "-journal").stat().st_size


def test_what_a_run_was_killed_in_is_undone_by_who_may_and_told_by_who_may_only_read(
    tmp_path, models, capsys
):
    """Half of it is in the file, which was read as it lay and called damaged."""
    write_archive(tmp_path / "in", 6)
    job = write_job(tmp_path, models / "identity", render="batch_size = 1")
    assert run(cli, ["batch", str(job), "-q"]) == 0
    folder = tmp_path / "out" / ".tilemapper" / "nightly"
    ledger = folder / "ledger.sqlite"
    killed_without_wal(ledger)
    folder.chmod(0o555)
    ledger.chmod(0o444)
    assert PREFIX is not None
    for words in (["status", str(job)], ["batch", str(job), "--dry-run"]):
        command = [*PREFIX, sys.executable, "-m", "tilemapper", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 75
        assert done.stderr.startswith(f"error: {ledger}: a run is at work in it or was killed, ")
        assert done.stderr.count("\n") == 1
    folder.chmod(0o755)
    ledger.chmod(0o644)
    capsys.readouterr()
    assert run(cli, ["status", str(job), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["done"] == 6
    assert not ledger.with_name(ledger.name + "-journal").exists()


def read_only(folder: Path) -> list[str]:
    """What to put before a command for which a folder is mounted without the right to write."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", mount, str(folder)]


def test_the_status_of_an_archive_is_told_where_it_is_mounted_for_reading(tmp_path, models):
    """SQLite has other words there for the log that it cannot make."""
    write_archive(tmp_path / "in", 1)
    job = write_job(tmp_path, models / "identity", render="batch_size = 1")
    assert run(cli, ["batch", str(job), "-q"]) == 0
    mounted = read_only(tmp_path)
    try:
        subprocess.run([*mounted, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs unshare, and a system that lets one")
    told = []
    for words in (["status", str(job)], ["batch", str(job), "--dry-run"]):
        command = [*mounted, sys.executable, "-m", "tilemapper", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert told[0]["counts"]["done"] == 1
    assert told[1]["todo"] == 0
