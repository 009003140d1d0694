"""Archives that the tests make for themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.world import BOUNDS, poison, write_archive, write_job
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import leave
from tilemapper.archive.run import run_archive
from tilemapper.networks.model import Model, open_model


@pytest.fixture
def identity(models: Path) -> Model:
    return open_model(models / "identity")


@pytest.fixture
def small(tmp_path: Path, models: Path) -> ArchiveJob:
    """A job over six good scenes."""
    write_archive(tmp_path / "in", 6)
    return load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))


@pytest.fixture
def poisoned(tmp_path: Path, models: Path) -> tuple[ArchiveJob, dict[str, str]]:
    """A job over 50 good scenes and ten that cannot be rendered, with what their reasons say."""
    write_archive(tmp_path / "in", 50)
    words = poison(tmp_path / "in" / "bad")
    render = f"batch_size = 1\nbounds = {list(BOUNDS)}"
    return load_job(write_job(tmp_path, models / "identity", render=render)), words


@pytest.fixture
def left(tmp_path, models, identity):
    """A run over three good scenes and a failing one, and what it left."""
    write_archive(tmp_path / "in", 3)
    (tmp_path / "in" / "<b>bad & ugly.tif").write_bytes(b"")
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    summary = run_archive(job, identity)
    leave(job, summary, metrics=tmp_path / "metrics.prom")
    return job, summary
