"""What reports and `tilemapper status` read of a ledger, and which reports stand already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tilemapper.archive.database import Database
from tilemapper.archive.rows import STATES


class Figures(Database):
    """The ledger in figures, and in whole rows."""

    def select(self, where: str = "1", values: tuple[Any, ...] = ()) -> Iterator[dict[str, Any]]:
        """Whole rows as dicts, for reports; ``where`` is SQL of our own."""
        with self.said():
            for row in self.db.execute(f"SELECT * FROM scenes WHERE {where}", values):
                yield dict(row)

    def counts(self) -> dict[str, int]:
        """Scenes by state, those that are gone from the archive left out."""
        with self.said():
            found = self.db.execute(
                "SELECT state, COUNT(*) FROM scenes WHERE NOT gone GROUP BY state"
            )
            return {state: 0 for state in STATES} | {row[0]: row[1] for row in found}

    def totals(self) -> dict[str, float]:
        """Pixels, seconds and bytes of all scenes that are done, and how many are gone."""
        with self.said():
            row = self.db.execute(
                "SELECT TOTAL(pixels), TOTAL(seconds), TOTAL(output_bytes) FROM scenes "
                "WHERE state='done' AND NOT gone"
            ).fetchone()
            gone = self.db.execute("SELECT COUNT(*) FROM scenes WHERE gone").fetchone()[0]
        return {"pixels": row[0], "seconds": row[1], "output_bytes": row[2], "gone": gone}

    def revision(self) -> str:
        """Changes with every change of any scene."""
        with self.said():
            states = self.db.execute(
                "SELECT state, gone, COUNT(*), TOTAL(attempts), TOTAL(ended_s) FROM scenes "
                "GROUP BY state, gone ORDER BY state, gone"
            ).fetchall()
        return repr([tuple(row) for row in states])

    def left_revision(self) -> str | None:
        """The revision of which reports were written last."""
        return self.fact("left revision")

    def left_at(self) -> float:
        """When the last scene ended that reports tell of; 0 if there are none.

        Also 0 when the clock was put back behind that: what ended since cannot be told then.
        """
        last = float(self.fact("left at") or 0)
        return last if last <= time.time() else 0.0

    def last_end(self) -> float:
        """When the last scene ended, as far as that is not in the future; 0 if none did."""
        with self.said():
            last = self.db.execute("SELECT COALESCE(MAX(ended_s), 0) FROM scenes").fetchone()[0]
        return min(float(last), time.time())

    def note_left(self, revision: str, last_end_s: float) -> None:
        """Notes that the reports of a revision stand, and that later scenes are still to come.

        Both from before they were written: other runs end scenes meanwhile.
        """
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO facts (key, value) VALUES (?,?) "
                "ON CONFLICT (key) DO UPDATE SET value=excluded.value",
                [("left revision", revision), ("left at", repr(last_end_s))],
            )

    def note(self, facts: dict[str, str]) -> None:
        """Writes down facts of the whole ledger, by their keys."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO facts (key, value) VALUES (?,?) "
                "ON CONFLICT (key) DO UPDATE SET value=excluded.value", facts.items(),
            )  # fmt: skip

    def fact(self, key: str) -> str | None:
        """A fact of the whole ledger; None if it was never noted."""
        with self.said():
            row = self.db.execute("SELECT value FROM facts WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row[0])
