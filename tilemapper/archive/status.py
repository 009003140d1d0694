"""What the ledger of a job says, and what its next run would do. Opens no raster and no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger


@dataclass(frozen=True)
class Status:
    """The ledger in figures. ``runs``: those that are alive, as ``host, process``."""

    job: str
    ledger: str
    counts: dict[str, int]
    gone: int
    pixels: int
    seconds: float
    output_bytes: int
    failures: list[dict[str, Any]]
    runs: list[str]
    last_run: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


def status(job: ArchiveJob) -> Status:
    """The status of a job; of one that never ran, zeros."""
    path = job.work / "ledger.sqlite"
    found = Ledger.existing(path)
    if found is None:
        return Status(job.name, str(path), {}, 0, 0, 0.0, 0, [], [], None)
    with found as ledger:
        totals = ledger.totals()
        failures = ledger.select("state='failed' AND NOT gone ORDER BY source")
        return Status(
            job=job.name,
            ledger=str(path),
            counts=ledger.counts(),
            gone=int(totals["gone"]),
            pixels=int(totals["pixels"]),
            seconds=round(totals["seconds"], 3),
            output_bytes=int(totals["output_bytes"]),
            failures=[
                {"scene": row["source"], "error": row["error"], "attempts": row["attempts"]}
                for row in failures
            ],
            runs=list(ledger.living_runs().values()),
            last_run=ledger.last_run(),
        )
