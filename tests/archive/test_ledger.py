from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tilemapper.archive import database
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.liveness import birth_of, is_on_network
from tilemapper.archive.rows import Change
from tilemapper.errors import DiskFullError, TargetError


def change(scene: str = "a", **more) -> Change:
    plain = Change(
        scene, f"/in/{scene}.tif", f"/out/{scene}.tif", "pending", None, None, 1, 2, 3, None
    )
    return plain._replace(**more)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "work" / "ledger.sqlite") as opened:
        opened.begin_run("one", lease_s=60)
        opened.begin_run("two", lease_s=60)
        opened.upsert([change()])
        yield opened


def published(ledger: Ledger, run: str) -> bool:
    facts = {"recipe": "r", "seconds": 1.0, "facts": "{}"}
    return ledger.announce("a", run, sha256="ff", facts=facts) and ledger.publish(
        "a", run, lambda: "stamp"
    )


def test_only_one_of_two_runs_gets_a_scene(ledger):
    assert ledger.claim("a", "one")
    assert not ledger.claim("a", "two")


def test_a_done_scene_is_never_claimed_again(ledger):
    assert ledger.claim("a", "one")
    assert published(ledger, "one")
    assert not ledger.claim("a", "two")
    assert ledger.counts()["done"] == 1


def test_a_run_that_lost_its_scene_publishes_nothing(ledger):
    ledger.claim("a", "one")
    ledger.end_run("one", "taken for dead")
    ledger.upsert([change(keep=True, died=1)])
    assert ledger.claim("a", "two")
    called = []
    assert not ledger.publish("a", "one", lambda: called.append(1) or "stamp")
    assert not called
    assert ledger.rows()["a"].run == "two"


def test_a_publication_that_fails_leaves_the_scene_to_its_run(ledger):
    ledger.claim("a", "one")

    def put() -> str:
        raise TargetError("no room")

    with pytest.raises(TargetError):
        ledger.publish("a", "one", put)
    row = ledger.rows()["a"]
    assert (row.state, row.run) == ("running", "one")


def test_planning_does_not_touch_what_a_living_run_holds(ledger):
    ledger.claim("a", "one")
    ledger.upsert([change(size_bytes=99)])
    row = ledger.rows()["a"]
    assert (row.state, row.size_bytes) == ("running", 1)


def test_an_interrupted_run_hands_its_scenes_back(ledger):
    ledger.claim("a", "one")
    ledger.end_run("one", "interrupted")
    row = ledger.rows()["a"]
    assert (row.state, row.run, row.attempts) == ("pending", None, 0)


def test_a_run_whose_process_is_gone_is_not_alive(ledger):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    birth = birth_of(child.pid)
    with ledger.transaction() as db:
        db.execute("UPDATE runs SET pid=?, birth=? WHERE id='one'", (child.pid, birth))
    assert "one" in ledger.living_runs()
    child.communicate(b"\n")
    assert set(ledger.living_runs()) == {"two"}


def test_a_number_taken_by_another_process_is_not_the_run(ledger):
    birth = birth_of(os.getpid())
    with ledger.transaction() as db:
        db.execute("UPDATE runs SET birth=? WHERE id='one'", (f"{birth}9",))
    assert set(ledger.living_runs()) == {"two"}


def test_a_run_of_another_machine_lives_as_long_as_its_heart_beats(ledger):
    def beat_of(seconds_ago: float) -> set[str]:
        with ledger.transaction() as db:
            db.execute(
                "UPDATE runs SET host='elsewhere', birth='boot/space/1', beat_s=? WHERE id='one'",
                (time.time() - seconds_ago,),
            )
        return set(ledger.living_runs())

    assert beat_of(30) == {"one", "two"}
    assert beat_of(61) == {"two"}


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to look at" * 40)
    with pytest.raises(TargetError, match="damaged or no ledger"):
        Ledger(tmp_path / "ledger.sqlite")


@pytest.mark.parametrize("name", [b"output TEXT", b"factsfacts"], ids=["column", "table"])
def test_a_ledger_whose_schema_is_damaged_is_named(tmp_path, name):
    """SQLite quotes the damaged name of a table, and Python cannot read what is no text."""
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    whole = path.read_bytes()
    assert whole.count(name) == 1
    path.write_bytes(whole.replace(name, b"\x80" + name[1:]))
    with pytest.raises(TargetError, match="is damaged"), Ledger(path, read_only=True) as damaged:
        damaged.rows()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_that_sqlite_has_other_words_for_is_told_as_one(ledger, monkeypatch, number):
    def full(**_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(database.tempfile, "TemporaryFile", full)
    with pytest.raises(DiskFullError, match=rf"ledger\.sqlite: {os.strerror(number)}"):
        told(ledger, "unable to open database file")


def test_what_sqlite_says_of_a_disk_that_has_room_is_no_full_disk(ledger):
    with pytest.raises(DiskFullError, match=os.strerror(errno.ENOSPC)):
        told(ledger, "database or disk is full")
    with pytest.raises(TargetError, match="unable to open database file"):
        told(ledger, "unable to open database file")


def told(ledger: Ledger, words: str) -> None:
    with ledger.said():
        raise sqlite3.OperationalError(words)


def test_what_is_announced_is_on_the_disk_before_the_output_is_put_in_place(ledger):
    """One sync a scene, and the one that matters: a power cut then leaves nothing unexplained."""
    said: list[str] = []
    ledger.claim("a", "one")
    ledger.db.set_trace_callback(said.append)
    assert published(ledger, "one")
    ledger.db.set_trace_callback(None)
    levels = [line.partition("=")[2] for line in said if line.startswith("PRAGMA synchronous")]
    assert levels == ["FULL", "NORMAL"]


def test_on_a_network_file_system_every_change_is_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "is_on_network", lambda folder: True)
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        assert opened.db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        opened.claim("a", "one")
        assert opened.db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_run_that_ended_without_a_word_holds_nothing_though_its_process_lives(tmp_path):
    """Its disk was full when it wanted to say so; a notebook goes on, and tries again."""
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.begin_run("one", lease_s=60)
        assert list(opened.living_runs()) == ["one"]
        with pytest.raises(DiskFullError), pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "transaction", full)
            opened.end_run("one", "interrupted")
        assert opened.living_runs() == {}


@contextlib.contextmanager
def full(_ledger, **_options):
    raise DiskFullError("the disk is full")
    yield


@pytest.mark.parametrize(
    ("ahead_s", "alive"), [(-3600, False), (0, True), (3600, True), (1e7, False)]
)
def test_a_run_elsewhere_is_dead_whose_last_beat_lies_far_ahead(tmp_path, ahead_s, alive):
    """It died, and the clock was put back: nobody would get its scenes for a year."""
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.begin_run("one", lease_s=60)
        with opened.transaction() as db:
            db.execute("UPDATE runs SET birth='elsewhere', beat_s=?", (time.time() + ahead_s,))
        assert bool(opened.living_runs()) == alive


def test_a_scene_takes_little_more_room_than_what_is_known_of_it(ledger):
    """Each had a page of its own and more; those that left the archive are kept, too."""
    ledger.upsert([change(f"scene {n}") for n in range(300)])
    ledger.update([("x" * 1800, f"scene {n}") for n in range(300)], "facts=?")
    pages, size = (
        ledger.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    assert pages * size < 300 * 3000


def test_a_share_is_known_by_its_kind_whatever_its_name(tmp_path, monkeypatch):
    """A space in a mount point is written as an escape: the disk above it was looked at."""
    real = Path.read_bytes
    lines = "/dev/a / ext4 rw 0 0\n//nas/gis %s cifs rw 0 0\n/dev/b %s/local ext4 rw 0 0\n"
    share = tmp_path / "GIS Däta"
    shown = str(share).replace(" ", "\\040")
    table = (lines % (shown, shown)).encode() + b"/dev/c /\xff ext4 rw 0 0\n"
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: table if str(path) == "/proc/mounts" else real(path)
    )
    assert is_on_network(share / "maps")
    assert not is_on_network(share / "local" / "maps")
    assert not is_on_network(tmp_path)


@pytest.mark.parametrize(
    "stamp",
    ['7 "0f1c-2"', "a\\b/c", "\b\t\n\f\r\x01\x1f\x7f", "\u00e9\u65e5\u2028\U0001f600", "", None],
)
def test_a_scene_is_planned_anew_whatever_a_store_calls_its_output(ledger, stamp):
    """What was seen of a row is compared with what SQLite writes of it, letter by letter."""
    assert ledger.claim("a", "one")
    ledger.announce("a", "one", sha256="ff", facts={"recipe": "r"})
    assert ledger.publish("a", "one", lambda: stamp)
    ledger.upsert([change(seen=ledger.rows()["a"].seen)])
    assert ledger.state_of("a") == "pending"
