"""The ledger: what is done of an archive, in SQLite beside the outputs, safe for several runs.

A scene belongs to the run that claimed it for as long as that run's heart beats. Every change of
owner and every publication is one transaction, so no scene is rendered or published by two.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tilemapper.archive.liveness import birth_of, is_alive, is_on_network
from tilemapper.archive.rows import ROW_COLUMNS, SCHEMA, STATES, Change, Row
from tilemapper.errors import LockedError, TargetError
from tilemapper.raster.atomic import writing_failed

# Killed this often while one scene was being rendered, a run takes the scene for the cause.
MAX_DEATHS = 5
_BUSY_S = 60.0


class Ledger:
    """An open ledger. One object for each thread; close it, or use ``with``.

    Raises:
        TargetError, DiskFullError: it cannot be made or written.
        LockedError: another run kept it locked for a minute.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if not read_only:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise writing_failed(path.parent, error) from error
        with self._said():
            mode = "?mode=ro" if read_only else ""
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}{mode}", uri=True, timeout=_BUSY_S, isolation_level=None
            )
            self._db.row_factory = sqlite3.Row
            if not read_only:
                # WAL shares memory between processes, which those of two machines do not have.
                journal = "DELETE" if is_on_network(path.parent) else "WAL"
                self._db.execute(f"PRAGMA journal_mode={journal}")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(SCHEMA)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise LockedError(
                    f"{self.path}: kept locked by another run for {_BUSY_S:.0f} s; try again later"
                ) from error
            full = "full" in str(error)
            raise writing_failed(self.path, OSError(28 if full else 5, str(error))) from error
        except sqlite3.DatabaseError as error:
            raise TargetError(
                f"{self.path}: is damaged or no ledger ({error}); move it away and set "
                "output.overwrite = true to render anew"
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else writes meanwhile."""
        with self._said():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def rows(self) -> dict[str, Row]:
        """All scenes by id."""
        with self._said():
            found = self._db.execute(f"SELECT {ROW_COLUMNS} FROM scenes")
            return {row[0]: Row(*row) for row in found}

    def select(self, where: str = "1", values: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        """Whole rows as dicts, for reports; ``where`` is SQL of our own."""
        with self._said():
            for row in self._db.execute(f"SELECT * FROM scenes WHERE {where}", values):
                yield dict(row)

    def ids(self, where: str) -> set[str]:
        """Ids of the scenes for which ``where``, SQL of our own, holds."""
        with self._said():
            return {row[0] for row in self._db.execute(f"SELECT id FROM scenes WHERE {where}")}

    def state_of(self, scene: str) -> str:
        """The state of one scene; pending if the ledger does not know it."""
        with self._said():
            row = self._db.execute("SELECT state FROM scenes WHERE id=?", (scene,)).fetchone()
        return "pending" if row is None else str(row[0])

    def counts(self) -> dict[str, int]:
        """Scenes by state, those that are gone from the archive left out."""
        with self._said():
            found = self._db.execute(
                "SELECT state, COUNT(*) FROM scenes WHERE NOT gone GROUP BY state"
            )
            return {state: 0 for state in STATES} | {row[0]: row[1] for row in found}

    def begin_run(self, run: str, *, lease_s: float) -> None:
        """Registers a run, as alive from now on."""
        now = time.time()
        values = (run, socket.gethostname(), os.getpid(), birth_of(os.getpid()), now, now, lease_s)
        with self.transaction() as db:
            db.execute(
                "INSERT INTO runs (id, host, pid, birth, started_s, beat_s, lease_s) "
                "VALUES (?,?,?,?,?,?,?)", values,
            )  # fmt: skip

    def beat(self, run: str) -> None:
        """Says that a run is alive."""
        with self.transaction() as db:
            db.execute("UPDATE runs SET beat_s=? WHERE id=?", (time.time(), run))

    def end_run(self, run: str, outcome: str) -> None:
        """Ends a run and hands back the scenes that it still holds."""
        with self.transaction() as db:
            db.execute("UPDATE runs SET ended_s=?, outcome=? WHERE id=?",
                       (time.time(), outcome, run))  # fmt: skip
            db.execute(
                "UPDATE scenes SET state='pending', run=NULL, reason='interrupted', "
                "attempts=MAX(attempts-1, 0) WHERE run=? AND state='running'", (run,),
            )  # fmt: skip

    def living_runs(self) -> dict[str, str]:
        """Runs whose scenes must not be touched: id -> ``host, pid``."""
        with self._said():
            found = self._db.execute("SELECT * FROM runs WHERE ended_s IS NULL").fetchall()
        return {row["id"]: f"{row['host']}, process {row['pid']}" for row in found if is_alive(row)}

    def last_run(self) -> dict[str, Any] | None:
        """The run that began last."""
        with self._said():
            row = self._db.execute("SELECT * FROM runs ORDER BY started_s DESC LIMIT 1").fetchone()
        return None if row is None else dict(row)

    def revision(self) -> str:
        """Changes with every change of any scene."""
        with self._said():
            states = self._db.execute(
                "SELECT state, gone, COUNT(*), TOTAL(attempts), MAX(ended_s) FROM scenes "
                "GROUP BY state, gone ORDER BY state, gone"
            ).fetchall()
        return repr([tuple(row) for row in states])

    def left_revision(self) -> str | None:
        """The revision of which reports were written last."""
        return self._fact("left revision")

    def left_at(self) -> float:
        """When reports were written last; 0 if never."""
        return float(self._fact("left at") or 0)

    def note_left(self, revision: str) -> None:
        """Notes that the reports of a revision stand, and that later scenes are still to come."""
        with self.transaction() as db:
            last = db.execute("SELECT COALESCE(MAX(ended_s), 0) FROM scenes").fetchone()[0]
            db.executemany(
                "INSERT INTO facts (key, value) VALUES (?,?) "
                "ON CONFLICT (key) DO UPDATE SET value=excluded.value",
                [("left revision", revision), ("left at", repr(last))],
            )

    def _fact(self, key: str) -> str | None:
        with self._said():
            row = self._db.execute("SELECT value FROM facts WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def upsert(self, changes: Iterable[Change]) -> None:
        """Writes planned scenes; those that a living run holds are left as they are."""
        living = ",".join(f"'{run}'" for run in self.living_runs())
        names = ", ".join(Change._fields[:10])
        updates = ", ".join(f"{name}=excluded.{name}" for name in Change._fields[1:10])
        with self.transaction() as db:
            db.executemany(
                f"INSERT INTO scenes ({names}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10) "
                f"ON CONFLICT (id) DO UPDATE SET {updates}, run=NULL, gone=0, "
                "attempts=CASE WHEN ?11 THEN attempts ELSE 0 END, "
                "deaths=CASE WHEN ?11 THEN deaths + ?12 ELSE 0 END, "
                "output_sha256=CASE WHEN ?11 THEN output_sha256 END, "
                "made=CASE WHEN output=excluded.output THEN made ELSE 0 END "
                f"WHERE state != 'running' OR run NOT IN ({living})",
                changes,
            )

    def update(self, rows: Iterable[tuple[Any, ...]], columns: str) -> None:
        """Sets ``columns`` ("a=?, b=?") of many scenes; the id comes last in each tuple."""
        with self.transaction() as db:
            db.executemany(f"UPDATE scenes SET {columns} WHERE id=?", rows)

    def mark_back(self, ids: Iterable[str]) -> None:
        """Scenes that the archive lists again count again."""
        with self.transaction() as db:
            db.executemany("UPDATE scenes SET gone=0 WHERE id=?", [(i,) for i in ids])

    def totals(self) -> dict[str, float]:
        """Pixels, seconds and bytes of all scenes that are done, and how many are gone."""
        with self._said():
            row = self._db.execute(
                "SELECT TOTAL(pixels), TOTAL(seconds), TOTAL(output_bytes) FROM scenes "
                "WHERE state='done' AND NOT gone"
            ).fetchone()
            gone = self._db.execute("SELECT COUNT(*) FROM scenes WHERE gone").fetchone()[0]
        return {"pixels": row[0], "seconds": row[1], "output_bytes": row[2], "gone": gone}

    def mark_gone(self, ids: Iterable[str]) -> None:
        """Scenes that the archive no longer lists stay in the ledger, but count no more."""
        with self.transaction() as db:
            db.executemany("UPDATE scenes SET gone=1 WHERE id=? AND state != 'running'",
                           [(i,) for i in ids])  # fmt: skip

    def claim(self, scene: str, run: str) -> bool:
        """Makes a pending scene the run's own; False if another run was first."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE scenes SET state='running', run=?, attempts=attempts+1, started_s=?, "
                "error=NULL, output_sha256=NULL WHERE id=? AND state='pending'",
                (run, time.time(), scene),
            )
            return changed.rowcount == 1

    def announce(self, scene: str, run: str, *, sha256: str, facts: dict[str, Any]) -> bool:
        """Notes what is about to be published, so that a kill in between loses no work."""
        columns = ", ".join(f"{name}=:{name}" for name in facts)
        values = facts | {"id": scene, "run": run, "sha256": sha256}
        with self.transaction() as db:
            changed = db.execute(
                f"UPDATE scenes SET output_sha256=:sha256, made=1, {columns} "
                "WHERE id=:id AND run=:run AND state='running'", values,
            )  # fmt: skip
            return changed.rowcount == 1

    def publish(self, scene: str, run: str, put: Callable[[], str]) -> bool:
        """Puts the output in place and marks the scene done, if it is still the run's own.

        put: renames, and returns the output's stamp; called while no other run can take over.
        """
        with self.transaction() as db:
            own = db.execute(
                "SELECT 1 FROM scenes WHERE id=? AND run=? AND state='running'", (scene, run)
            ).fetchone()
            if own is None:
                return False
            stamp = put()
            db.execute(
                "UPDATE scenes SET state='done', run=NULL, reason=NULL, error=NULL, deaths=0, "
                "ended_s=?, output_stamp=? WHERE id=?", (time.time(), stamp, scene),
            )  # fmt: skip
            return True

    def give_up(
        self, scene: str, run: str, state: str, line: str | None, *, recipe: str | None = None
    ) -> None:
        """Ends a run's attempt at a scene without an output, with one line that says why."""
        refund = 1 if state == "pending" and line is None else 0
        with self.transaction() as db:
            db.execute(
                "UPDATE scenes SET state=?, run=NULL, error=?, ended_s=?, recipe=?, "
                "attempts=attempts-? WHERE id=? AND run=? AND state='running'",
                (state, line, time.time(), recipe, refund, scene, run),
            )

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
