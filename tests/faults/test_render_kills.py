"""`tilemapper render` killed at random moments: what stood there stands, and it goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.injection import Driver, Ended
from tests.faults.oracle import Oracle
from tests.faults.table import count

KILLS = 200
REAL_KILLS = 20


def kills(driver: Driver, oracle: Oracle, number: int, seed: int) -> tuple[int, list[str]]:
    """Kills until that many runs died; after about every third the run may go on to its end.

    Returns how many of the dead had finished blocks or more, and what was wrong.
    """
    chance = random.Random(seed)
    died, far, wrong = 0, 0, []
    oracle.reset()
    while died < number:
        after = chance.uniform(0, 1.2) * oracle.seconds
        ended = driver.run(oracle.arguments, signal=(after, signal.SIGKILL))
        said = oracle.complaints(ended, 0, -signal.SIGKILL)
        died += ended.code == -signal.SIGKILL
        far += oracle.has_begun()
        if ended.code == 0 or chance.random() < 0.3:
            said += oracle.go_on(driver)
            oracle.reset()
        wrong += [f"killed after {after:.3f} s: {one}" for one in said]
    return far, wrong + oracle.go_on(driver)


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["plain", "masked", "gdal"])
def test_kills_at_random_moments_cost_nothing_but_time(driver, scenes, name):
    number = KILLS // 2 if name == "plain" else KILLS // 4
    far, wrong = kills(driver, scenes(name), number, seed=8)
    count(f"render: kill -9 at random moments, {name}", number, len(wrong), f"{far} with blocks")
    # Most must die amid their work, or nothing was shown.
    assert far > number // 4
    assert not wrong, "\n".join(wrong)


def test_a_few_kills_at_random_moments_cost_nothing_but_time(driver, scenes):
    _, wrong = kills(driver, scenes("single"), 3, seed=9)
    assert not wrong, "\n".join(wrong)


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_kills_of_whole_processes_cost_nothing_but_time(driver, scenes):
    oracle, chance, died, wrong = scenes("plain"), random.Random(10), 0, []
    oracle.reset()
    begun = time.monotonic()
    assert whole_process(oracle, None).code == 0
    whole = time.monotonic() - begun
    oracle.reset()
    while died < REAL_KILLS:
        ended = whole_process(oracle, chance.uniform(0.2, 1.0) * whole)
        died += ended.code == -signal.SIGKILL
        wrong += oracle.complaints(ended, 0, -signal.SIGKILL)
        if ended.code == 0:
            oracle.reset()
    wrong += oracle.go_on(driver)
    count("render: kill -9 at random moments, whole processes", died, len(wrong))
    assert not wrong, "\n".join(wrong)


def whole_process(oracle: Oracle, after: float | None) -> Ended:
    """A run in a process of its own, as a user has it, killed some seconds after its start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *oracle.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        out, err = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return Ended(process.returncode, out, err, None)
