"""SIGTERM and SIGINT of `batch` and `train` at any time: soon over, one line, gone on with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.faults.injection import Driver, Ended
from tests.faults.subjects import Subject
from tests.faults.table import count
from tests.faults.test_commands_faults import driver, subjects  # noqa: F401  fixtures

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def words(name: str, ended: Ended) -> list[str]:
    """What is wrong with how a run that was told to stop ended."""
    lines = ended.err.splitlines()
    if name == "train" and lines[:1] == ["stopping after this step; once more to stop at once"]:
        lines = lines[1:]  # said at once, before the end
    said = []
    if ended.code == 0:
        return ["late"] if ended.late else []
    if len(lines) != 1 or not lines[0].startswith("interrupted by signal "):
        said.append(f"says {ended.err!r}")
    return said + (["hangs"] if ended.late else [])


def real(arguments: list[str], after_s: float, number: int) -> Ended:
    """A process of its own, told to stop after some seconds."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    time.sleep(after_s)
    process.send_signal(number)
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    late = time.monotonic() - asked > 10
    return Ended(process.returncode, out, err, None, seconds=time.monotonic() - begun, late=late)


def judged(name: str, ended: Ended, number: int, *, unborn: bool) -> list[str]:
    """What is wrong with a run that a signal ended.

    ``unborn``: it may not have come as far as our first line, so that the signal itself ends it.
    """
    code = CODES[signal.Signals(number)]
    if unborn and ended.code == -number:
        return []
    said = [] if ended.code in (0, code) else [f"exit code {ended.code}, not {code}"]
    return said + words(name, ended)


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "points"), [("batch", 60), ("train", 24), ("pairs cut", 20)])
def test_a_signal_at_any_moment_ends_it_soon_and_it_goes_on(
    driver: Driver,  # noqa: F811
    subjects: Callable[[str], Subject],  # noqa: F811
    name: str,
    points: int,
):
    subject, dice, wrong = subjects(name), random.Random(9), []
    for point in range(points):
        subject.reset()
        number = (signal.SIGTERM, signal.SIGINT)[point % 2]
        moment = dice.uniform(0, subject.seconds)
        ended = driver.run(subject.arguments, signal=(moment, number), timeout_s=moment + 12)
        # A forked child has the parent's signals for the milliseconds before it calls us.
        said = judged(name, ended, number, unborn=moment < 0.02) + subject.standing()
        said += subject.whole() if ended.code == 0 else subject.go_on(driver, ended)
        wrong += [f"{number} after {moment:.3f} s: {'; '.join(said)}"] if said else []
    count(f"{name}: SIGTERM and SIGINT", points, len(wrong), "of a forked process")
    assert not wrong, "\n".join(wrong)


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["batch", "train"])
def test_a_real_process_is_told_to_stop_from_its_first_moments_on(driver, subjects, name):  # noqa: F811
    subject, wrong = subjects(name), []
    moments = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.0, 3.0, 4.0)
    for point, moment in enumerate(moments):
        subject.reset()
        number = (signal.SIGTERM, signal.SIGINT)[point % 2]
        ended = real(subject.arguments, moment, number)
        # Python takes some tenths of a second to our first line.
        said = judged(name, ended, number, unborn=moment < 1)
        said += subject.whole() if ended.code == 0 else subject.go_on(driver, ended)
        wrong += [f"{number} after {moment} s: {'; '.join(said)}"] if said else []
    count(f"{name}: signals to a real process", len(moments), len(wrong), "from 50 ms on")
    assert not wrong, "\n".join(wrong)


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["batch", "train"])
def test_a_real_process_is_killed_and_gone_on_with(driver, subjects, name):  # noqa: F811
    subject, dice, wrong = subjects(name), random.Random(3), []
    for _ in range(10):
        subject.reset()
        ended = real(subject.arguments, dice.uniform(1.0, 4.0 + subject.seconds), signal.SIGKILL)
        said = [] if ended.code in (0, -9) else [f"exit code {ended.code}"]
        said += subject.standing() + subject.go_on(driver, ended)
        wrong += ["; ".join(said)] if said else []
    count(f"{name}: kill -9 of a real process", 10, len(wrong), "gone on with in a forked one")
    assert not wrong, "\n".join(wrong)
