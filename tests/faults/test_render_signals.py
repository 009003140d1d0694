"""SIGTERM and SIGINT at any time: the right exit code, soon, one line, and the run goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.injection import Ended
from tests.faults.oracle import Oracle
from tests.faults.table import count

SIGNALS = 100
SOON_S = 10.0
FIRST_S = 0.05
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def listens(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM by now; before, Python alone is starting."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(
        next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16
    )
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def interrupted(oracle: Oracle, number: int, after: float) -> Ended:
    """A process of its own that gets a signal; `late` when it ends no sooner than `SOON_S`.

    Not `fired` when the signal came before a line of ours had run.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *oracle.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    time.sleep(after)
    early = process.poll() is None and number != 0 and not listens(process.pid)
    process.send_signal(number)
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    seconds = time.monotonic() - asked
    late = seconds > SOON_S and process.returncode != 0
    return Ended(process.returncode, out, err, None, seconds=seconds, late=late, fired=not early)


def signals(oracle, number: int, seed: int, driver) -> tuple[str, list[str]]:
    """Signals at random moments; a note on them, and what was wrong."""
    chance = random.Random(seed)
    oracle.reset()
    begun = time.monotonic()
    assert interrupted(oracle, 0, 0.0).code == 0
    whole = time.monotonic() - begun
    sent, before, early, slowest, wrong = 0, 0, 0, 0.0, []
    while sent < number:
        which = chance.choice(list(CODES))
        # A third of them while Python and torch are being loaded.
        after = chance.uniform(FIRST_S, whole * (0.3 if sent % 3 == 0 else 1.0))
        ended = interrupted(oracle, which, after)
        if not ended.fired:
            # Python's own answer, whatever it is; nothing was begun.
            early += 1
            continue
        said = oracle.complaints(ended, 0, CODES[which])
        if ended.code == 0:
            before += 1
            oracle.reset()
        else:
            sent += 1
            slowest = max(slowest, ended.seconds)
        wrong += [f"{which.name} after {after:.3f} s: {one}" for one in said]
    note = f"slowest end {slowest:.1f} s; besides, {before} came after the end"
    note += f" and {early} before a line of ours had run"
    return note, wrong + oracle.go_on(driver)


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_a_hundred_signals_end_it_soon_with_one_line(driver, scenes):
    note, wrong = signals(scenes("plain"), SIGNALS, 11, driver)
    count("render: SIGTERM and SIGINT from the first 50 ms", SIGNALS, len(wrong), note)
    assert not wrong, "\n".join(wrong)
