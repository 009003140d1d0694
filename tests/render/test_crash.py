"""kill -9, SIGTERM and SIGINT at random moments: nothing wrong, nothing lost, same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio

from tests.conftest import noise, read_raster, write_raster
from tilemapper.render.journal import read_journal
from tilemapper.render.staging import staging_folder

KILLS = 50


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("crash") / "city.tif", noise(1080, 1100))


def words(city, target, model, *more):
    command = ["render", str(city), str(target), "--model", str(model), "--block", "512"]
    return [*command, "--overwrite", *more]


def start(city, target, model, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *words(city, target, model, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def complete(forks, city, target, model, *more, **how):
    """The command of `start` to its end, in a fork: its beginning matters to signals only."""
    return forks.run(*words(city, target, model, *more), cwd=target.parent, **how)


def kill_at_random(forks, city, target, model, old, kills, seed):
    """Starts renders and kills them; returns how many died, and how many blocks survived.

    In forks: their whole time goes into rendering, and so every kill hits that.
    """
    chance = random.Random(seed)
    begun = time.monotonic()
    straight = complete(forks, city, target, model)
    assert (straight.code, straight.stderr) == (0, "")
    whole = time.monotonic() - begun
    expected = hashlib.sha256(target.read_bytes()).hexdigest()
    target.write_bytes(old)
    died = survived = 0
    while died < kills:
        begun = time.monotonic()
        run = complete(forks, city, target, model, kill_after_s=chance.uniform(0.1, 1.0) * whole)
        if run.code == 0:
            whole = min(whole, time.monotonic() - begun)  # the first one may be ten times slower
            assert hashlib.sha256(target.read_bytes()).hexdigest() == expected
            target.write_bytes(old)
            continue
        assert run.code == -signal.SIGKILL, run.stderr
        died += 1
        survived += len(list(staging_folder(target).glob("blocks/r*")))
        # Killed between the rename and the removal of the staging folder, the new map stands.
        assert hashlib.sha256(target.read_bytes()).hexdigest() in (
            expected,
            hashlib.sha256(old).hexdigest(),
        )
    ended = complete(forks, city, target, model)
    assert (ended.code, ended.stderr) == (0, "")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == expected
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
    return died, survived


@pytest.mark.timeout(600)
def test_a_few_kills_at_random_moments_cost_nothing_but_time(forks, city, models, tmp_path):
    died, _ = kill_at_random(forks, city, tmp_path / "map.tif", models / "slow", b"old", 3, seed=1)
    assert died == 3


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_fifty_kills_at_random_moments_cost_nothing_but_time(forks, city, models, tmp_path):
    died, survived = kill_at_random(
        forks, city, tmp_path / "map.tif", models / "slow", b"old", KILLS, seed=2
    )
    assert died == KILLS
    assert survived > 0


DIE_IN_FINISH = """
import os
import tilemapper.render.finish as finish
from tilemapper.cli.main import main
finish._check = lambda *arguments: os._exit(137)
main()
"""


def test_a_kill_while_the_raster_is_joined_leaves_nothing_beside_it(forks, city, models, tmp_path):
    target = tmp_path / "map.tif"
    command = ["render", city, target, "--model", models / "identity", "--block", "512"]
    assert forks.run(*command, cwd=tmp_path, code=DIE_IN_FINISH).code == 137
    assert [path.name for path in tmp_path.iterdir()] == [staging_folder(target).name]
    assert list(staging_folder(target).glob(".map.*.tmp.tif"))
    assert complete(forks, city, target, models / "identity").stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_it_soon_with_its_code_and_the_next_run_goes_on(
    forks, city, models, tmp_path, number, code
):
    target = tmp_path / "map.tif"
    for _ in range(20):
        run = forks.start(*words(city, target, models / "slow", "-v"), cwd=tmp_path)
        while run.runs and not read_journal(staging_folder(target) / "journal"):
            time.sleep(0.02)
        asked = time.monotonic()
        os.kill(run.pid, number)
        stopped = run.wait(60)
        took_s = time.monotonic() - asked
        if not target.exists():
            break
        # It had ended by then, or all but: the blocks that are left take less than a second.
        target.unlink()
        shutil.rmtree(staging_folder(target), ignore_errors=True)
    assert took_s < 30  # 10 are promised, more where all is starved
    assert stopped.code == code
    assert stopped.lines[-1].startswith("interrupted by signal")
    assert "Traceback" not in stopped.stderr
    ended = complete(forks, city, target, models / "slow")
    assert ended.code == 0, ended.stderr
    assert "blocks stood already" in ended.stdout
    assert np.array_equal(read_raster(target), read_raster(city))


def test_a_signal_in_the_first_moments_is_no_traceback(city, models, tmp_path):
    run = start(city, tmp_path / "map.tif", models / "slow")
    time.sleep(0.4)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=120)
    assert run.returncode in (143, -signal.SIGTERM)
    assert "Traceback" not in said


def test_a_truncated_source_leaves_nothing_under_the_final_name(forks, models, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(1400, 1500), tiled=True, blockysize=256)
    data = city.read_bytes()
    city.write_bytes(data[: len(data) * 2 // 3])
    ended = complete(forks, city, tmp_path / "map.tif", models / "identity")
    assert ended.code == 1
    assert ended.stderr.startswith("error: ")
    assert len(ended.lines) == 1
    assert not (tmp_path / "map.tif").exists()


def test_a_whole_source_renders_the_same_beside_it(forks, city, models, tmp_path):
    ended = complete(forks, city, tmp_path / "map.tif", models / "identity", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    assert '"tiles":' in ended.stdout
    with rasterio.open(tmp_path / "map.tif") as dst:
        assert dst.shape == (1080, 1100)
