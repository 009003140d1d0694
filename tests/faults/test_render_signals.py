"""SIGTERM and SIGINT at any time: the right exit code, soon, one line, and the run goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.injection import Ended
from tests.faults.oracle import Oracle
from tests.faults.table import count

SIGNALS = 100
SOON_S = 10.0
FIRST_S = 0.05
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def interrupted(oracle: Oracle, number: int, after: float) -> Ended:
    """A process of its own that gets a signal; `late` when it ends no sooner than `SOON_S`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *oracle.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    time.sleep(after)
    process.send_signal(number)
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    seconds = time.monotonic() - asked
    late = seconds > SOON_S and process.returncode != 0
    return Ended(process.returncode, out, err, None, seconds=seconds, late=late)


def signals(oracle, number: int, seed: int, driver) -> tuple[int, float, list[str]]:
    """Signals at random moments; runs that had ended before, the slowest end, what was wrong."""
    chance = random.Random(seed)
    oracle.reset()
    begun = time.monotonic()
    assert interrupted(oracle, 0, 0.0).code == 0
    whole = time.monotonic() - begun
    sent, before, slowest, wrong = 0, 0, 0.0, []
    while sent < number:
        which = chance.choice(list(CODES))
        # A third of them while Python and torch are being loaded.
        after = chance.uniform(FIRST_S, whole * (0.3 if sent % 3 == 0 else 1.0))
        ended = interrupted(oracle, which, after)
        said = oracle.complaints(ended, 0, CODES[which])
        if ended.code == 0:
            before += 1
            oracle.reset()
        else:
            sent += 1
            slowest = max(slowest, ended.seconds)
        wrong += [f"{which.name} after {after:.3f} s: {one}" for one in said]
    return before, slowest, wrong + oracle.go_on(driver)


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_a_hundred_signals_end_it_soon_with_one_line(driver, scenes):
    before, slowest, wrong = signals(scenes("plain"), SIGNALS, 11, driver)
    note = f"slowest end {slowest:.1f} s; {before} more had ended before"
    count("render: SIGTERM and SIGINT from the first 50 ms", SIGNALS, len(wrong), note)
    assert not wrong, "\n".join(wrong)
