"""Two runs of one job: what the other one does at the worst moment."""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import threading

import pytest
import rasterio

from tests.archive.world import LEFT, write_job, write_scene
from tilemapper.archive import database, runs, stac
from tilemapper.archive.estimate import estimate
from tilemapper.archive.handover import Handover
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import leave
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.planning import plan_archive
from tilemapper.archive.run import run_archive
from tilemapper.archive.status import status
from tilemapper.archive.units import listed
from tilemapper.errors import LockedError

CONNECT = sqlite3.connect


def tables(path):
    with contextlib.closing(CONNECT(path)) as db:
        return db.execute("SELECT COUNT(*) FROM sqlite_master WHERE type='table'").fetchone()[0]


def busy(monkeypatch, *, times):
    """Connections that SQLite refuses the journal's kind, as where two open a new file at once."""
    left = [times]

    class Busy(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if "journal_mode" in sql and left[0]:
                left[0] -= 1
                raise sqlite3.OperationalError("database is locked")
            return super().execute(sql, *arguments)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(CONNECT, factory=Busy))


def test_a_new_ledger_that_another_run_is_making_is_waited_for(tmp_path, monkeypatch):
    busy(monkeypatch, times=3)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.counts()["pending"] == 0


def test_a_new_ledger_that_stays_locked_is_told(tmp_path, monkeypatch):
    busy(monkeypatch, times=-1)
    monkeypatch.setattr(database, "_BUSY_S", 0.1)
    with pytest.raises(LockedError, match="kept locked by another run"):
        Ledger(tmp_path / "ledger.sqlite")


def test_nobody_sees_some_of_a_ledgers_tables(tmp_path, monkeypatch):
    path, seen = tmp_path / "ledger.sqlite", set()

    class Watched(sqlite3.Connection):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.set_trace_callback(lambda _sql: seen.add(tables(path)))

    monkeypatch.setattr(sqlite3, "connect", functools.partial(CONNECT, factory=Watched))
    Ledger(path).close()
    assert seen == {0}
    assert tables(path) == 4


def test_a_ledger_that_has_no_tables_yet_is_that_of_a_job_that_never_ran(small, identity):
    small.work.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(small.work / "ledger.sqlite")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        assert status(small).counts == {}
        assert estimate(small, identity, listed(small, None)).todo == 6


def test_what_another_run_has_done_since_it_was_planned_is_not_done_again(small, identity):
    with Ledger(small.work / "ledger.sqlite") as ledger:
        scenes = listed(small, None)
        late = plan_archive(small, scenes, ledger, model_digest=identity.card.digest)
        assert len(late.todo) == 6
        assert run_archive(small, identity).done == 6
        late.write(ledger)
        assert ledger.counts()["done"] == 6


def test_a_scene_that_another_run_has_claimed_since_stays_its_own(small, identity):
    with Ledger(small.work / "ledger.sqlite") as ledger:
        scenes = listed(small, None)
        first, late = (
            plan_archive(small, scenes, ledger, model_digest=identity.card.digest) for _ in range(2)
        )
        first.write(ledger)
        scene = first.todo[0].scene.id
        # Its run begins after the late one has asked which are alive.
        living = ledger.living_runs()
        ledger.begin_run("one", lease_s=60)
        assert ledger.claim(scene, "one")
        ledger.living_runs = lambda: living
        late.write(ledger)
        assert (ledger.rows()[scene].state, ledger.rows()[scene].run) == ("running", "one")
        ledger.end_run("one", "ended")


@pytest.mark.parametrize("goes_on", ["while the other publishes", "once the other has ended"])
def test_one_whose_heart_stopped_leaves_a_scene_to_the_one_that_took_it_over(
    small, identity, monkeypatch, goes_on
):
    """Both stage it under one name: it removed the other's file, or failed for want of its own."""
    real, held, told, other = Handover.publish, [], [], []
    monkeypatch.setattr(runs, "is_alive", lambda run: False)

    def late(handover, decision, outcome):
        if not held:
            held.append((handover, decision, outcome))
            other.append(run_archive(small, identity))
            return told[0] if told else real(handover, decision, outcome)
        if not told and goes_on == "while the other publishes":
            told.append(real(*held[0]))
        return real(handover, decision, outcome)

    monkeypatch.setattr(Handover, "publish", late)
    first = run_archive(small, identity)
    assert (other[0].done, other[0].failures) == (6, [])
    assert (first.done, first.failures, first.already_done, first.left) == (0, [], 6, 0)
    assert not list((small.work / "staging").iterdir())


def test_the_last_of_two_that_end_tells_of_the_scenes_of_both(small, identity, monkeypatch):
    """The second ends while the first writes: no older list may follow, no item be left out."""
    later = sorted((small.root.parent / "in").rglob("*.tif"))[2:]
    for path in later:
        path.rename(path.with_suffix(".aside"))
    first = run_archive(small, identity)
    real, others = stac.write_collection, []

    def slowly(job, rows):
        rows = list(rows)
        if not others:
            for path in later:
                path.with_suffix(".aside").rename(path)
            second = run_archive(job, identity)
            assert (first.done, second.done) == (2, 4)
            others.append(threading.Thread(target=leave, args=(job, second)))
            others[0].start()
            others[0].join(1)
        real(job, iter(rows))

    monkeypatch.setattr(stac, "write_collection", slowly)
    leave(small, first)
    others[0].join()
    assert len(list((small.root / "items").iterdir())) == 6
    links = json.loads((small.root / "collection.json").read_text())["links"]
    assert sum(link["rel"] == "item" for link in links) == 6


@pytest.mark.parametrize("kind", ["one", "scene"])
def test_a_mosaic_that_has_grown_since_a_run_began_is_not_done_without_its_new_scene(
    tmp_path, models, identity, monkeypatch, kind
):
    """A run that listed it before rendered it as it was, under the version that it has now."""
    for index in range(3):
        write_scene(tmp_path / "in" / f"{index}.tif", index, at=LEFT + 40 * index)
    late = tmp_path / "in" / "2.tif"
    late.rename(tmp_path / "2.tif")
    path = write_job(tmp_path, models / "identity", render="batch_size = 1")
    path.write_text(f'{path.read_text()}\n[mosaic]\noutput = "{kind}"\n')
    job, real = load_job(path), Ledger.claim

    def meanwhile(ledger, *arguments, **options):
        if not late.exists():
            (tmp_path / "2.tif").rename(late)
            digest = identity.card.digest
            plan_archive(job, listed(job, None), ledger, model_digest=digest).write(ledger)
        return real(ledger, *arguments, **options)

    monkeypatch.setattr(Ledger, "claim", meanwhile)
    first = run_archive(job, identity)
    then = run_archive(job, identity)
    assert (first.failed, then.failed, then.left) == (0, 0, 0)
    outputs = sorted((tmp_path / "out").glob("*.tif"))
    assert len(outputs) == (1 if kind == "one" else 3)
    for output in outputs:
        with rasterio.open(output) as src:
            assert src.width == (120 if kind == "one" else 40)
    assert first.left > 0
