"""The ledger: what is done of an archive, in SQLite beside the outputs, safe for several runs.

A scene belongs to the run that claimed it for as long as that run's heart beats. Every change of
owner and every publication is one transaction, so no scene is rendered or published by two.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from tilemapper.archive.figures import Figures
from tilemapper.archive.rows import ROW_COLUMNS, Change, Row
from tilemapper.archive.runs import Runs

# Killed this often while one scene was being rendered, a run takes the scene for the cause.
MAX_DEATHS = 5


# Path and scene of every file that stands by the rows themselves: maps, then layers.
_MADE = """SELECT output AS path, id FROM scenes WHERE made
  UNION ALL SELECT json_extract(layer.value, '$.output'), scenes.id
  FROM scenes, json_each(scenes.facts, '$.layers') AS layer WHERE instr(facts, '"output"')"""


class Ledger(Runs, Figures):
    """An open ledger: its scenes and who has them. See `Database` for what opening it raises."""

    def rows(self) -> dict[str, Row]:
        """All scenes by id."""
        with self.said():
            found = self.db.execute(f"SELECT {ROW_COLUMNS} FROM scenes")
            return {row[0]: Row(*row) for row in found}

    def ids(self, where: str) -> set[str]:
        """Ids of the scenes for which ``where``, SQL of our own, holds."""
        with self.said():
            return {row[0] for row in self.db.execute(f"SELECT id FROM scenes WHERE {where}")}

    def state_of(self, scene: str) -> str:
        """The state of one scene; pending if the ledger does not know it."""
        with self.said():
            row = self.db.execute("SELECT state FROM scenes WHERE id=?", (scene,)).fetchone()
        return "pending" if row is None else str(row[0])

    def made(self, scene: str) -> set[str]:
        """The files that runs of this job put in place for a scene, or were about to."""
        with self.said():
            row = self.db.execute(
                "SELECT output, made, facts FROM scenes WHERE id=?", (scene,)
            ).fetchone()
        if row is None:
            return set()
        layers = json.loads(row["facts"]).get("layers", {}) if row["facts"] else {}
        paths = {str(layer["output"]) for layer in layers.values()}
        return paths | ({str(row["output"])} if row["made"] else set())

    def all_made(self) -> dict[str, str]:
        """The scene of every file that runs of this job put in place, now or with old templates."""
        with self.said():
            known = self.db.execute("SELECT 1 FROM sqlite_master WHERE name='former'").fetchone()
            # A ledger of an earlier version that is only read has no such table.
            former = "UNION ALL SELECT path, scene FROM former" if known else ""
            return {path: scene for path, scene in self.db.execute(f"{_MADE} {former}")}

    def upsert(self, changes: Iterable[Change]) -> None:
        """Writes planned scenes; those that a living run holds are left as they are.

        So are those that another run has got on with since they were read.
        """
        changes = list(changes)
        living = ",".join(f"'{run}'" for run in self.living_runs())
        names = ", ".join(Change._fields[:10])
        updates = ", ".join(f"{name}=excluded.{name}" for name in Change._fields[1:10])
        ids = json.dumps([change.id for change in changes])
        with self.transaction() as db:
            # A new template makes the row forget what was made by the old one.
            db.execute(
                f"INSERT OR IGNORE INTO former SELECT * FROM ({_MADE}) "
                "WHERE id IN (SELECT value FROM json_each(?))", (ids,),
            )  # fmt: skip
            db.executemany(
                f"INSERT INTO scenes ({names}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10) "
                f"ON CONFLICT (id) DO UPDATE SET {updates}, run=NULL, gone=0, "
                "attempts=CASE WHEN ?11 THEN attempts ELSE 0 END, "
                "deaths=CASE WHEN ?11 THEN deaths + ?12 ELSE 0 END, "
                "output_sha256=CASE WHEN ?11 THEN output_sha256 END, "
                "made=CASE WHEN output=excluded.output THEN made ELSE 0 END "
                f"WHERE (state != 'running' OR run NOT IN ({living})) AND "
                "(?13 IS NULL OR ?13 = json_array(state, run, attempts, output_stamp))",
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

    def mark_gone(self, ids: Iterable[str]) -> None:
        """Scenes that the archive no longer lists stay in the ledger, but count no more."""
        with self.transaction() as db:
            db.executemany("UPDATE scenes SET gone=1 WHERE id=? AND state != 'running'",
                           [(i,) for i in ids])  # fmt: skip

    def claim(self, scene: str, run: str, *, etag: str | None = None) -> bool:
        """Makes a pending scene the run's own; False if another run was first.

        etag: the version that the run knows. A mosaic that has grown since, as another run has
            noted, would be done as it was under the version that it has now.
        """
        with self.transaction(durable=False) as db:
            changed = db.execute(
                "UPDATE scenes SET state='running', run=?, attempts=attempts+1, started_s=?, "
                "error=NULL, output_sha256=NULL WHERE id=? AND state='pending' AND etag IS ?",
                (run, time.time(), scene, etag),
            )
            return changed.rowcount == 1

    def holds(self, scene: str, run: str) -> bool:
        """Whether a scene is still the run's own; another takes it over once its lease is up."""
        with self.said():
            row = self.db.execute(
                "SELECT 1 FROM scenes WHERE id=? AND run=? AND state='running'", (scene, run)
            ).fetchone()
        return row is not None

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
        # After a power cut, what was announced and stands is found to be done.
        with self.transaction(durable=False) as db:
            if not self.holds(scene, run):
                return False
            stamp = put()
            db.execute(
                "UPDATE scenes SET state='done', run=NULL, reason=NULL, error=NULL, deaths=0, "
                "ended_s=?, output_stamp=? WHERE id=?", (time.time(), stamp, scene),
            )  # fmt: skip
            return True

    def give_up(
        self,
        scene: str,
        run: str,
        state: str,
        line: str | None,
        *,
        recipe: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Ends a run's attempt at a scene without an output, with one line that says why.

        facts: what was learnt of the scene all the same, on top of what is known.
        """
        refund = 1 if state == "pending" and line is None else 0
        with self.transaction(durable=False) as db:
            db.execute(
                "UPDATE scenes SET state=?, run=NULL, error=?, ended_s=?, recipe=?, "
                "attempts=attempts-?, facts=json_patch(COALESCE(facts, '{}'), ?) "
                "WHERE id=? AND run=? AND state='running'",
                (state, line, time.time(), recipe, refund, json.dumps(facts or {}), scene, run),
            )
