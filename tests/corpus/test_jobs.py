"""Bad job files through ``batch`` and ``train``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import noise, write_raster
from tests.corpus import job_files
from tests.corpus.forks import Forks
from tests.corpus.judge import refusal_faults
from tests.corpus.training_sets import pair
from tests.faults.table import count
from tilemapper.networks.card import ModelCard, card_text

TRAINS = ("tilemapper.api.train", "tilemapper.training.run")
BATCHES = ("tilemapper.cli.batch", "tilemapper.archive.run")


def faults_of(forks: Forks, root: Path, command: str, jobs: list[tuple[str, bytes]]) -> list[str]:
    """What is wrong with how these jobs ended, by name."""
    (root / "model").mkdir()
    card = ModelCard(name="identity", architecture="identity")
    (root / "model" / "model.toml").write_text(card_text(card))
    (root / "scenes").mkdir()
    write_raster(root / "scenes" / "a.tif", noise(20, 20))
    for number in range(3):
        pair(root / "pairs" / f"{number}.png", number)
    wrong = []
    before = {path.name for path in root.iterdir()} | {"job.toml"}
    for name, data in jobs:
        (root / "job.toml").write_bytes(data)
        arguments = ["batch", "job.toml"]
        if command == "train":
            arguments = ["train", "pairs", "--config", "job.toml", "--out", "run"]
        ended = forks.run(*arguments, cwd=root, preload=TRAINS if command == "train" else BATCHES)
        faults = [ended.costs_too_much()]
        if ended.code == 3:  # a scene failed for what the job asks of it, and its line says so
            faults += [] if ended.stderr.count("failed: ") == 1 else [f"says {ended.stderr!r}"]
        else:
            faults += refusal_faults(ended, code=2 if ended.code == 2 else 1)
        left = {path.name for path in root.iterdir()} - before
        faults += [f"{path} left" for path in left - {".tilemapper", "out", "run"}]
        faults += [f"{path} made" for path in (*root.rglob("out/*.tif"), *root.rglob("run/model"))]
        wrong += [f"{name}: {fault}" for fault in faults if fault]
    return wrong


@pytest.mark.fault
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", ["batch", "train"])
def test_every_job_file_of_the_corpus(forks: Forks, tmp_path: Path, command: str):
    jobs = list(job_files.archives() if command == "batch" else job_files.trainings())
    wrong = faults_of(forks, tmp_path, command, jobs)
    names = {line.partition(": ")[0] for line in wrong}
    count(f"job files of {command}", len(jobs), len(names), "exit 1, 2 or 3, one line each")
    assert wrong == []


def test_job_files_nested_deep_or_of_endless_numbers_are_one_line(forks: Forks, tmp_path: Path):
    words = ("100,000 lists", "without end", "a null")
    jobs = [job for job in job_files.archives() if any(word in job[0] for word in words)]
    assert len(jobs) == 5
    assert faults_of(forks, tmp_path, "batch", jobs) == []
