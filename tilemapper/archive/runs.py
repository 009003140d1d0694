"""The runs of a ledger: which began, which are alive, and what becomes of what they held."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from tilemapper.archive.database import Database
from tilemapper.archive.liveness import AT_WORK, birth_of, is_alive


class Runs(Database):
    """The ledger's runs. A scene belongs to its run for as long as that run's heart beats."""

    def begin_run(self, run: str, *, lease_s: float) -> None:
        """Registers a run, as alive from now on."""
        now = time.time()
        values = (run, socket.gethostname(), os.getpid(), birth_of(os.getpid()), now, now, lease_s)
        AT_WORK.add(run)
        try:
            with self.transaction() as db:
                db.execute(
                    "INSERT INTO runs (id, host, pid, birth, started_s, beat_s, lease_s) "
                    "VALUES (?,?,?,?,?,?,?)", values,
                )  # fmt: skip
        except BaseException:
            AT_WORK.discard(run)
            raise

    def beat(self, run: str) -> None:
        """Says that a run is alive."""
        with self.transaction(durable=False) as db:
            db.execute("UPDATE runs SET beat_s=? WHERE id=?", (time.time(), run))

    def end_run(self, run: str, outcome: str) -> None:
        """Ends a run and hands back the scenes that it still holds."""
        AT_WORK.discard(run)
        with self.transaction() as db:
            db.execute("UPDATE runs SET ended_s=?, outcome=? WHERE id=?",
                       (time.time(), outcome, run))  # fmt: skip
            db.execute(
                "UPDATE scenes SET state='pending', run=NULL, reason='interrupted', "
                "attempts=MAX(attempts-1, 0) WHERE run=? AND state='running'", (run,),
            )  # fmt: skip

    def living_runs(self) -> dict[str, str]:
        """Runs whose scenes must not be touched: id -> ``host, pid``."""
        with self.said():
            found = self.db.execute("SELECT * FROM runs WHERE ended_s IS NULL").fetchall()
        return {row["id"]: f"{row['host']}, process {row['pid']}" for row in found if is_alive(row)}

    def last_run(self) -> dict[str, Any] | None:
        """The run that began last."""
        with self.said():
            row = self.db.execute("SELECT * FROM runs ORDER BY started_s DESC LIMIT 1").fetchone()
        return None if row is None else dict(row)
