"""Whose ledger it is: two jobs of one name above the same outputs would undo each other's."""

from __future__ import annotations

from pathlib import Path

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.ledger import Ledger
from tilemapper.errors import JobError

_KEY = "job"


def check_owner(job: ArchiveJob, ledger: Ledger) -> None:
    """Refuses a ledger that another job keeps, whose scenes would count as gone.

    A job whose file has moved is the same; so is a copy that has the same source.

    Raises:
        JobError: it does.
    """
    other = ledger.fact(_KEY)
    if job.file is not None and other is not None and _is_another(job, job.file, Path(other)):
        raise JobError(
            f"{job.file}: its ledger in {job.work} is that of {other}, which has other scenes; "
            "give one of the two another name, or output.work"
        )


def note_owner(job: ArchiveJob, ledger: Ledger) -> None:
    """Writes down whose ledger it is."""
    if job.file is not None and ledger.fact(_KEY) != str(job.file):
        ledger.note({_KEY: str(job.file)})


def _is_another(job: ArchiveJob, own: Path, other: Path) -> bool:
    try:
        if other == own or other.samefile(own):
            return False
        theirs = load_job(other)
    except (OSError, JobError):
        return False  # moved, or changed beyond use: it does not run any more
    return theirs.work == job.work and theirs.source != job.source
