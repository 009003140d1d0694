"""The ledger's file: one SQLite connection, its transactions, and its errors in our words."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tilemapper.archive.liveness import is_on_network
from tilemapper.archive.rows import SCHEMA
from tilemapper.errors import LockedError, TargetError
from tilemapper.raster.atomic import make_folder, writing_failed

_BUSY_S = 60.0
_PAUSE_S = 0.02
_PROBE_BYTES = 1 << 16


class Database:
    """An open ledger file. One object for each thread; close it, or use ``with``.

    Raises:
        TargetError, DiskFullError: it cannot be made or written.
        LockedError: another run kept it locked for a minute.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._wal = False
        if not read_only:
            make_folder(path.parent)
        with self.said():
            self.db = self._readable() if read_only else self._connected("")
            self.db.row_factory = sqlite3.Row
            if not read_only:
                # WAL shares memory between processes, which those of two machines do not have.
                self._wal = not is_on_network(path.parent)
                self._prepare()

    @classmethod
    def existing(cls, path: Path) -> Self | None:
        """The ledger, for one who only looks; None while it has no tables, or is not there.

        A run that starts makes the file first. See `Database` for what is raised.
        """
        if not path.exists():
            return None
        found = cls(path, read_only=True)
        try:
            with found.said():
                begun = found.db.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            found.close()
            raise
        if begun is not None:
            return found
        found.close()
        return None

    def _prepare(self) -> None:
        """Sets the journal's kind and makes the tables, all at once: others read meanwhile."""
        until_s = time.monotonic() + _BUSY_S
        while True:
            try:
                # SQLite does not wait by itself where two change the kind of a new file.
                self.db.execute(f"PRAGMA journal_mode={'WAL' if self._wal else 'DELETE'}")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until_s:
                    raise
                time.sleep(_PAUSE_S)
        begun = self.db.execute("SELECT 1 FROM sqlite_master").fetchone()
        # Where they are all there nothing is written, nor waited for.
        self.db.executescript(SCHEMA if begun else f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    def _connected(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}{mode}", uri=True, timeout=_BUSY_S,
            isolation_level=None,
        )  # fmt: skip

    def _readable(self) -> sqlite3.Connection:
        """The file for one who only looks, and may have no rights to do more."""
        found = self._connected("?mode=ro")
        try:
            found.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            found.close()
            # The latter on a disk that is mounted for reading.
            if not any(words in str(error) for words in ("readonly", "unable to open")):
                raise
            beside = (self.path.with_name(self.path.name + end) for end in ("-journal", "-wal"))
            if any(path.exists() for path in beside):
                self._recover()
                return self._connected("?mode=ro")
            # What WAL needs beside the file even to read it may not be made here, and is not
            # there: no run is at work that could change the file.
            return self._connected("?immutable=1")
        return found

    def _recover(self) -> None:
        """Undoes what a run was killed in, where one may: half of it is in the file without WAL."""
        with contextlib.closing(self._connected("?mode=rw")) as db:
            try:
                db.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise
                raise LockedError(
                    f"{self.path}: a run is at work in it or was killed, and what it wrote last is "
                    "read only with the right to write here; look again later, or with that right"
                ) from error

    @contextlib.contextmanager
    def said(self) -> Iterator[None]:
        """SQLite's errors in our words."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise LockedError(
                    f"{self.path}: kept locked by another run for {_BUSY_S:.0f} s; try again later"
                ) from error
            if "no such" in str(error):  # table or column: nothing to do with writing
                raise self._damaged(error) from error
            raise writing_failed(self.path, self._cause(error)) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # The latter when what SQLite would say quotes a part of the file that is no text.
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> TargetError:
        return TargetError(
            f"{self.path}: is damaged or no ledger ({error}); move it away and set "
            "output.overwrite = true to render anew"
        )

    def _cause(self, error: sqlite3.OperationalError) -> OSError:
        """What the disk has: SQLite tells of a full one in so many words only now and then."""
        if "full" in str(error):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            with tempfile.TemporaryFile(dir=self.path.parent) as probe:
                probe.write(bytes(_PROBE_BYTES))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as cause:
            return cause
        return OSError(errno.EIO, str(error))

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else writes meanwhile.

        durable: survives a power cut, which costs a sync. What is not survives a kill all the
        same, and is on the disk with the next that is.
        """
        with self.said():
            # Without a write-ahead log, sqlite needs the sync to keep the file whole.
            level = "NORMAL" if self._wal and not durable else "FULL"
            self.db.execute(f"PRAGMA synchronous={level}")
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the file."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
