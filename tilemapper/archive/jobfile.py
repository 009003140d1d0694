"""From a TOML file to a checked job, with one line about the first fault."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tilemapper import toml
from tilemapper.archive.job import (
    ArchiveJob,
    Mosaic,
    Output,
    Run,
    Source,
)
from tilemapper.archive.rendering import Render
from tilemapper.archive.rooting import rooted
from tilemapper.errors import JobError
from tilemapper.networks.arguments import nearest, wanted


def load_job(path: str | Path) -> ArchiveJob:
    """The job of a file. Paths in it count from the file's folder.

    Raises:
        JobError: it cannot be read, has an unknown key, or a value that cannot be used.
    """
    path = Path(path)
    try:
        values = toml.read(path)
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise JobError(f"{path}: is no TOML file ({error}); correct it") from error
    if values.get("kind") != "archive":
        raise JobError(
            f'{path}: kind {values.get("kind")!r} found, needed is kind = "archive"; training '
            "jobs are run by tilemapper train"
        )
    values.setdefault("name", _name_of(path))
    job = rooted(_checked(values, str(path)), path.absolute().parent)
    return job.read_from(path)


def _name_of(path: Path) -> str:
    """A job's name, as `job.ArchiveJob` takes it, from its file's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-")[:80] or "job"


def _checked(values: dict[str, Any], where: str) -> ArchiveJob:
    try:
        return ArchiveJob.model_validate(values)
    except ValidationError as error:
        fault, *others = error.errors()
    # A union's members appear in the place too; they are no keys of the file.
    place = [str(part) for part in fault["loc"] if not re.search(r"[\[(]", str(part))][:2]
    if fault["type"] == "extra_forbidden":
        raise JobError(f"{where}: unknown key {'.'.join(place)}{nearest(place[-1], _known(place))}")
    if fault["type"] == "missing" and not isinstance(fault["loc"][-1], int):
        raise JobError(f"{where}: key {'.'.join(place)} is missing; add it")
    found = "" if isinstance(fault["input"], dict) else f" is {str(fault['input'])[:80]!r}"
    raise JobError(
        f"{where}: {'.'.join(place) or 'job'}{found}: {wanted(fault, others)}; correct it"
    )


def _known(place: list[str]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "source": Source,
        "output": Output,
        "render": Render,
        "run": Run,
        "mosaic": Mosaic,
    }
    table: type[BaseModel] = tables.get(place[0], ArchiveJob) if len(place) > 1 else ArchiveJob
    return [*table.model_fields]
