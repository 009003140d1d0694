"""Scenes as the ledger holds them: its tables, and the rows that planning reads and writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

STATES = ("pending", "running", "done", "failed", "skipped")
# Scenes have rowids: without them each row, of about 2 KB, would take a page of its own and more.
SCHEMA = """
CREATE TABLE IF NOT EXISTS scenes (
  id TEXT PRIMARY KEY, source TEXT NOT NULL, output TEXT NOT NULL, state TEXT NOT NULL,
  reason TEXT, run TEXT, attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
  size_bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, etag TEXT, head_sha256 TEXT,
  recipe TEXT, error TEXT, started_s REAL, ended_s REAL, seconds REAL, pixels INTEGER,
  tiles INTEGER, output_sha256 TEXT, output_bytes INTEGER, output_stamp TEXT, facts TEXT,
  made INTEGER NOT NULL DEFAULT 0,
  gone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS scenes_state ON scenes (state);
CREATE TABLE IF NOT EXISTS runs (
  id TEXT PRIMARY KEY, host TEXT, pid INTEGER, birth TEXT, started_s REAL, beat_s REAL,
  lease_s REAL, ended_s REAL, outcome TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS former (path TEXT PRIMARY KEY, scene TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What planning needs to know of a scene; the ledger's columns by their names."""

    id: str
    source: str
    output: str
    state: str
    run: str | None
    attempts: int
    deaths: int
    size_bytes: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    etag: str | None
    head_sha256: str | None
    recipe: str | None
    error: str | None
    output_sha256: str | None
    output_stamp: str | None
    made: int
    gone: int

    @property
    def seen(self) -> str:
        """Changes with each thing that a run does with the scene; as SQLite writes it."""
        seen = (self.state, self.run, self.attempts, self.output_stamp)
        return json.dumps(seen, separators=(",", ":"), ensure_ascii=False)


class Change(NamedTuple):
    """What planning writes of a scene: ten columns, and what becomes of the others.

    keep: attempts and an announced output still count, since source and options are the same.
    died: 1 if a run was killed while it had the scene.
    seen: `Row.seen` of what it was planned from, "" if there was no row: written only while that
        holds. None: whatever holds.
    """

    id: str
    source: str
    output: str
    state: str
    reason: str | None
    error: str | None
    size_bytes: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    etag: str | None
    keep: bool = False
    died: int = 0
    seen: str | None = None


ROW_COLUMNS = ", ".join(Row.__slots__)
