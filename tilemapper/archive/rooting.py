"""Paths of a job made absolute: cron and systemd start programs anywhere.

What the job's own folder is called is nothing that the job says: no bracket in it begins a glob,
and no brace a field.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.template import escaped, fields_of, filled
from tilemapper.errors import JobError


def rooted(job: ArchiveJob, folder: Path) -> ArchiveJob:
    """A job whose relative paths count from ``folder``.

    Raises:
        JobError: a path begins with ``~`` and a user whom nobody knows.
    """
    model = job.render.model
    if "/" in model or model.startswith((".", "~")):
        model = _path(model, folder)
    layers = {key: _template(path, folder) for key, path in job.render.layers().items()}
    mask = {"mask": _path(job.render.mask, folder)} if job.render.mask else {}
    source = {"scenes": tuple(_scenes(named, folder) for named in job.source.scenes)}
    output = {
        "template": _template(job.output.template, folder),
        "work": job.output.work and _path(job.output.work, folder),
    }
    return job.model_copy(
        update={
            "source": job.source.model_copy(update=source),
            "output": job.output.model_copy(update=output),
            "render": job.render.model_copy(update={"model": model} | mask | layers),
        }
    )


def _path(path: str, folder: Path) -> str:
    return path if "://" in path else str(folder / _expanded(path))


def _scenes(named: str, folder: Path) -> str:
    if named == "-" or "://" in named:
        return named
    path = _path(named, folder)
    if not os.path.lexists(path):
        path = _path(named, Path(glob.escape(str(folder))))
    return path + ("/" if named.endswith("/") else "")


def _template(template: str, folder: Path) -> str:
    """A template from the root on, without ``..`` in what stands before its first field."""
    if "://" in template:
        return template
    head, slash, rest = template.partition("/")
    if head.startswith("~"):
        template = escaped(str(_expanded(head))) + slash + rest
    parts = Path(escaped(str(folder)), template).parts
    fixed = next(index for index, part in enumerate(parts) if fields_of(part))
    above = max((index for index in range(fixed) if parts[index] == ".."), default=-1) + 1
    if above:
        # As the disk has it: the folder above one that is a link is not the one before it.
        real = os.path.realpath(filled(str(Path(*parts[:above]))))
        parts = (escaped(real), *parts[above:])
    return str(Path(*parts))


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise JobError(f"{path}: no folder of this user is known; write the whole path") from error
