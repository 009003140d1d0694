"""`tilemapper render` under faults at every single call that changes its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import injection
from tests.faults.injection import Driver, Ended, Fault, every_point
from tests.faults.oracle import Oracle
from tests.faults.table import count
from tilemapper.render.staging import FINISHED

SCENES = ("single", "plain", "masked", "gdal")
# The three that are most unlike each other are tried on most scenes, the others on one or two.
FAULTS = {
    injection.DISK_FULL: SCENES,
    injection.DISK_ERROR: ("single", "plain", "gdal"),
    injection.KILLED: ("single", "plain"),
    injection.SHORT_THEN_FULL: ("single", "gdal"),
    injection.TORN: ("single", "plain"),
    injection.SHORT_WRITE: ("single", "gdal"),
    injection.DISK_FULL_ONCE: ("single",),
    injection.QUOTA: ("single",),
    injection.DISK_DEAD: ("single",),
    injection.KILLED_AFTER: ("single",),
    injection.NOT_REMOVED: ("single",),
    injection.NOT_READ: ("single", "plain"),
    injection.SHORT_READ: ("single",),
    # What GDAL writes itself is compared by pixels, place and tags, not byte by byte.
    injection.BIT_FLIPPED: ("single", "plain", "masked"),
}


def campaign(driver: Driver, oracle: Oracle, fault: Fault, step: int = 1) -> tuple[int, list[str]]:
    """Every point of one fault: how many there were, and what was wrong."""

    def run(fault: Fault) -> Ended:
        oracle.reset()
        return driver.run(oracle.arguments, fault, oracle.folder)

    points, wrong = 0, []
    for ended in every_point(run, fault, step=step):
        points += 1
        # The note that all is done may be missing: what was to be done is done.
        codes = (0, *fault.codes) if Path(ended.path).name == FINISHED else fault.codes
        said = oracle.complaints(ended, *codes) + oracle.go_on(driver)
        if said:
            kind = injection.Kind(ended.kind).name
            wrong.append(f"{fault.name}, {kind} of {ended.path}: {'; '.join(said)}")
    return points, wrong


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_at_any_call_costs_nothing_but_the_run(driver, scenes, fault):
    points, wrong = {}, []
    for name in FAULTS[fault]:
        points[name], found = campaign(driver, scenes(name), fault)
        wrong += [f"{name}: {one}" for one in found]
        note = ", ".join(f"{name} {number}" for name, number in points.items())
        count(f"render: {fault.name}", sum(points.values()), len(wrong), note)
    assert min(points.values()) > 0
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "fault",
    [injection.DISK_FULL, injection.DISK_ERROR, injection.KILLED],
    ids=lambda fault: fault.name.replace(" ", "-"),
)
def test_a_fault_at_every_fifth_call_costs_nothing_but_the_run(driver, scenes, fault):
    points, wrong = campaign(driver, scenes("single"), fault, step=5)
    assert points > 5
    assert not wrong, "\n".join(wrong)
