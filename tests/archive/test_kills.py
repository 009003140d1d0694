"""kill -9 and SIGTERM of the whole program, at random moments."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archive.world import write_archive, write_job, write_scene
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.run import run_archive
from tilemapper.networks.model import open_model

COMMAND = [sys.executable, "-m", "tilemapper", "batch"]


def outputs(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*_map.tif"))
    }


def started(job: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, str(job), "-q"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def done_in(ledger: Path) -> dict[str, float]:
    """When each done scene was done."""
    if not ledger.exists():
        return {}
    database = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        found = database.execute("SELECT source, ended_s FROM scenes WHERE state='done'")
        return dict(found.fetchall())
    except sqlite3.OperationalError:
        return {}
    finally:
        database.close()


def runs_in(ledger: Path) -> int:
    """How many runs have begun."""
    if not ledger.exists():
        return 0
    database = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()


def two_archives(folder: Path, model: Path, count: int) -> list[Path]:
    """The same scenes, links to the same files, for a run that is killed and one that is not."""
    write_archive(folder / "scenes", count)
    jobs = []
    for name in ("killed", "undisturbed"):
        (folder / name).mkdir()
        path = write_job(folder / name, model, render="batch_size = 1")
        path.write_text(path.read_text().replace('["in"]', f'["{folder / "scenes"}"]'))
        jobs.append(path)
    return jobs


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_twenty_kills_leave_the_archive_that_an_undisturbed_run_makes(tmp_path, models):
    killed, undisturbed = two_archives(tmp_path, models / "slow", 90)
    job = load_job(undisturbed)
    run_archive(job, open_model(job.render.model))
    ledger = load_job(killed).work / "ledger.sqlite"
    dice, done, struck = random.Random(6), {}, 0
    for _ in range(20):
        before = runs_in(ledger)
        process = started(killed)
        try:
            # Most of the start is imports: aim at the work behind it.
            while process.poll() is None and runs_in(ledger) == before:
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 0.4))
        finally:
            struck += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        now = done_in(ledger)
        # Whatever was done stays done, by the same rendering.
        assert {name: now.get(name) for name in done} == done
        done = now
    assert struck >= 15, f"{struck} of 20 kills hit a run at work"
    last = subprocess.run([*COMMAND, str(killed)], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    now = done_in(ledger)
    assert {name: now[name] for name in done} == done
    assert outputs(load_job(killed).root) == outputs(job.root)
    assert len(now) == 90


@pytest.mark.fault
def test_two_runs_at_once_share_the_scenes_and_render_none_twice(tmp_path, models):
    killed, undisturbed = two_archives(tmp_path, models / "identity", 24)
    job = load_job(undisturbed)
    run_archive(job, open_model(job.render.model))
    runs = [
        subprocess.Popen([*COMMAND, str(killed), "--json", "-q"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    lines = [line for process in runs for line in process.communicate()[0].splitlines()]
    assert {process.returncode for process in runs} <= {0, 75}
    done = [line for line in lines if '"state": "done"' in line]
    assert len(done) == 24
    assert outputs(load_job(killed).root) == outputs(job.root)


def test_sigterm_ends_the_run_within_ten_seconds_and_leaves_no_scene_taken(forks, tmp_path, models):
    write_archive(tmp_path / "in", 30, size=300)
    path = write_job(tmp_path, models / "slow", render="batch_size = 1")
    process = forks.start("batch", path, "-q", cwd=tmp_path, preload=("tilemapper.archive.run",))
    ledger = load_job(path).work / "ledger.sqlite"
    while process.runs and not done_in(ledger):
        time.sleep(0.05)
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60).code == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 30  # 10 are promised, more where all is starved
    before = done_in(ledger)
    assert 0 < len(before) < 30
    database = sqlite3.connect(ledger)
    states = dict(database.execute("SELECT state, COUNT(*) FROM scenes GROUP BY state"))
    database.close()
    assert "running" not in states


@pytest.mark.fault
def test_sigterm_keeps_the_blocks_of_the_scene_under_way(tmp_path, models):
    write_scene(tmp_path / "in" / "large.tif", 1, size=2000)
    path = write_job(tmp_path, models / "slow", render="batch_size = 1\nblock = 512")
    process = started(path)
    job = load_job(path)

    def blocks() -> list[Path]:
        return list((job.work / "staging").glob("*.part/blocks/[!.]*"))

    while process.poll() is None and len(blocks()) < 2:
        time.sleep(0.05)
    begun = time.monotonic()
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 10
    kept = len(blocks())
    assert 2 <= kept < 16
    assert run_archive(job, open_model(job.render.model)).done == 1
    database = sqlite3.connect(job.work / "ledger.sqlite")
    facts = json.loads(database.execute("SELECT facts FROM scenes").fetchone()[0])
    database.close()
    assert facts["blocks_resumed"] == kept
