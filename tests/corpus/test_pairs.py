"""Bad training sets through ``pairs check`` and ``train``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.corpus import training_sets
from tests.corpus.forks import Forks, Listener
from tests.corpus.judge import refusal_faults
from tests.corpus.test_jobs import TRAINS
from tests.faults.table import count

SHORT = ("an image of 20,000 px a side", "npz of objects", "npz of a header that calls",
         "a pipe named as an image", "npz that promises 15 GB, packed")  # fmt: skip
NETWORK = ("--set", "steps=1", "--set", "networks.generator_arguments={width=1}")


def faults_of(
    forks: Forks, listener: Listener, root: Path, chosen: list[tuple[str, training_sets.Make, str]]
) -> list[str]:
    """What is wrong with how check and train ended, by name."""
    wrong = []
    connections = len(listener.connections)
    for name, make, outcome in chosen:
        shutil.rmtree(root / "set", ignore_errors=True)
        (root / "set").mkdir(parents=True)
        data = root / "set" / "data"
        data.mkdir()
        make(data)
        source = data if data.exists() or not data.with_suffix(".npz").exists() else "data.npz"
        commands = [["pairs", "check", source]]
        if outcome == training_sets.REFUSED:
            commands.append(["train", source, "--out", root / "set" / "run", *NETWORK])
        for command in commands:
            ended = forks.run(*command, cwd=root / "set", env=listener.env, preload=TRAINS)
            ended_well = outcome == training_sets.FINE
            faults = (
                [f"exit {ended.code}: {ended.stderr[-300:]}"] if ended_well and ended.code else []
            )
            faults += [] if ended_well else _refusal(ended, command[0])
            faults += [ended.costs_too_much()]
            faults += ["its code ran"] if (root / "set" / "ran").exists() else []
            faults += ["a model left"] if list(root.rglob("model.toml")) else []
            wrong += [f"{name}: {command[0]}: {fault}" for fault in faults if fault]
    return wrong + listener.connections[connections:]


def _refusal(ended, command: str) -> list[str]:
    faults = refusal_faults(ended)
    if command == "pairs":  # which says how many it has looked at
        faults = [fault for fault in faults if " pairs checked, " not in fault]
    return faults


def test_training_sets_with_bombs_or_code_are_refused_in_one_line(forks, listener, tmp_path):
    chosen = [case for case in training_sets.cases() if case[0] in SHORT]
    assert len(chosen) == len(SHORT)
    assert faults_of(forks, listener, tmp_path, chosen) == []


@pytest.mark.fault
@pytest.mark.timeout(2400)
def test_every_training_set_of_the_corpus(forks, listener, tmp_path):
    chosen = list(training_sets.cases())
    wrong = faults_of(forks, listener, tmp_path, chosen)
    names = {line.partition(": ")[0] for line in wrong}
    count("training sets", len(chosen), len(names), "pairs check; those to refuse, train too")
    assert wrong == []
