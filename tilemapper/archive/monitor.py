"""Figures for monitoring of a run that ends without a summary: by an error, or by a signal."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.metrics import openmetrics
from tilemapper.archive.rows import STATES
from tilemapper.archive.summary import RunSummary
from tilemapper.raster.atomic import write_text_atomic, writing_failed


class Monitor:
    """Counts what a run tells; its figures are left at ``path``, unless that is None.

    Raises:
        TargetError, DiskFullError: nothing can be written there. Told before the night, not after.
    """

    def __init__(self, job: ArchiveJob, path: Path | None) -> None:
        self._job, self._path = job, path
        self._begun = time.monotonic()
        self._summary = RunSummary(listed=0, already_done=0)
        if path is None:
            return
        try:
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise writing_failed(path, error) from error

    def tell(self, event: dict[str, Any]) -> None:
        """One event of the run."""
        summary, state = self._summary, event.get("state")
        summary.tiles += event.get("tiles", 0)
        if state in ("done", "failed", "skipped"):
            setattr(summary, state, getattr(summary, state) + 1)
            summary.pixels += event["pixels"] if state == "done" else 0

    def leave(self, exit_code: int) -> None:
        """Writes the figures of a run that ends now, with its exit code."""
        if self._path is None:
            return
        counts = dict.fromkeys(STATES, 0)
        found = Ledger.existing(self._job.work / "ledger.sqlite")
        if found is not None:
            with found as ledger:
                counts = ledger.counts()
        self._summary.left = counts["pending"] + counts["running"]
        self._summary.seconds = round(time.monotonic() - self._begun, 3)
        figures = self._summary.to_json() | {"exit_code": exit_code}
        write_text_atomic(self._path, openmetrics(self._job.name, counts, figures))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Leaves figures if what runs inside is ended by an error or a signal."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(Exception):  # the error itself says more
                self.leave(int(getattr(error, "exit_code", 1)))
            raise
