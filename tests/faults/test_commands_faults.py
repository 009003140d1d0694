"""`batch`, `train` and `pairs cut` under faults at every single call that changes their folders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import injection
from tests.faults.injection import Driver, Ended, Fault, Kind
from tests.faults.subjects import MODULES, Archive, Cutting, Subject, Training
from tests.faults.table import count

FAULTS = (
    injection.DISK_FULL,
    injection.DISK_FULL_ONCE,
    injection.QUOTA,
    injection.DISK_ERROR,
    injection.DISK_DEAD,
    injection.SHORT_WRITE,
    injection.SHORT_THEN_FULL,
    injection.KILLED,
    injection.KILLED_AFTER,
    injection.TORN,
    injection.NOT_REMOVED,
)
# An archive takes a second and five hundred calls, training some seconds: each fault meets every
# STEPth of them, and all faults together each call.
STEP = {"batch": 11, "train": 16, "pairs cut": 1}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("driver"), MODULES) as running:
        yield running


@pytest.fixture(scope="module")
def subjects(tmp_path_factory, models: Path, driver: Driver) -> Callable[[str], Subject]:
    """Subjects by name, each of which has learnt what is right."""
    made: dict[str, Subject] = {}

    def subject(name: str) -> Subject:
        if name not in made:
            place = tmp_path_factory.mktemp(name.replace(" ", "-")) / "place"
            if name == "batch":
                made[name] = Archive(place, model=models / "identity")
            else:
                made[name] = Training(place) if name == "train" else Cutting(place)
            made[name].learn(driver)
        return made[name]

    return subject


def codes(name: str, fault: Fault) -> tuple[int, ...]:
    """The exit codes of the contract; a batch may also go on without a scene."""
    if fault.kills or name != "batch":
        return fault.codes
    return (*fault.codes, 3) if fault.codes != (75,) else (75,)


def judged(driver: Driver, name: str, subject: Subject, ended: Ended) -> list[str]:
    """What is wrong with one disturbed run and what came after it."""
    assert ended.fault is not None
    allowed = codes(name, ended.fault)
    if ended.kind == Kind.MKDIR:
        allowed += (0,)  # of a folder that is there already
    if "ledger.sqlite" in ended.path or ended.path.endswith("nightly"):
        # SQLite may get over it, and tells an error of the disk, but not which.
        allowed += (0, 1, 3)
    if ended.path.endswith(".part/finished"):
        allowed += (0,)  # the note that all is done may be missing: what was to be done is done
    if ended.kind == Kind.RENAME and ended.path.endswith(".tmp"):
        allowed += (0,)  # a hard link that could not be made: the checkpoint is copied instead
    said = subject.complaints(ended, *allowed) + subject.go_on(driver, ended)
    kind = Kind(ended.kind).name
    where = f"{ended.fault.name} at {ended.fault.nth}, {kind} of {ended.path}"
    return [f"{where}: {'; '.join(said)}"] if said else []


def campaign(driver: Driver, name: str, subject: Subject, fault: Fault, step: int, first: int = 1):
    """Every ``step``th point of one fault: how many there were, and what was wrong."""

    points, wrong = 0, []
    while True:
        subject.reset()
        nth = first + step * points
        ended = driver.run(subject.arguments, replace(fault, nth=nth), subject.folder)
        if not ended.fired:
            assert ended.code == 0, ended
            return points, wrong
        points += 1
        wrong += judged(driver, name, subject, ended)


@pytest.mark.fault
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STEP)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_at_any_call_costs_nothing_but_the_run(driver, subjects, name, fault):
    step = STEP[name]
    points, wrong = campaign(
        driver, name, subjects(name), fault, step, first=1 + FAULTS.index(fault) % step
    )
    note = f"every {step}th call" if step > 1 else "every call"
    count(f"{name}: {fault.name}", points, len(wrong), note)
    assert points > 0
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "fault", [injection.DISK_FULL, injection.KILLED_AFTER], ids=["full", "kill"]
)
@pytest.mark.parametrize(("name", "at"), [("pairs cut", 60), ("batch", 150)])
def test_a_fault_in_the_middle_costs_nothing_but_the_run(driver, subjects, name, at, fault):
    subject = subjects(name)
    subject.reset()
    ended = driver.run(subject.arguments, replace(fault, nth=at), subject.folder)
    assert ended.fired
    assert not judged(driver, name, subject, ended)


@pytest.mark.fault
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "points"), [("batch", 100), ("train", 50), ("pairs cut", 50)])
def test_kills_at_random_moments_cost_nothing_but_the_run(driver, subjects, name, points):
    """Each killed run is gone on with, and killed again, three times before it may finish."""
    subject, dice, wrong, struck = subjects(name), random.Random(8), [], 0
    killed = replace(injection.KILLED, nth=0)
    while struck < points:
        subject.reset()
        arguments, ended = subject.arguments, None
        for _ in range(3):
            moment = dice.uniform(0, subject.seconds)
            ended = driver.run(arguments, signal=(moment, 9))
            ended = replace(ended, fault=killed)
            if ended.code == 0:
                break
            struck += 1
            said = subject.complaints(ended, -9)
            wrong += [f"killed after {moment:.3f} s: {'; '.join(said)}"] if said else []
            if subject.is_over():
                break
            arguments = subject.again(ended)
        if ended is not None and ended.code != 0:
            said = subject.go_on(driver, ended)
            wrong += [f"after the kills: {'; '.join(said)}"] if said else []
    count(f"{name}: kill -9 at random moments", struck, len(wrong), "of a forked process")
    assert not wrong, "\n".join(wrong)
