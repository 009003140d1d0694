"""Dockerfile and compose file, as far as they can be tested without an engine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tilemapper.cli.batch import batch

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def instructions(word: str) -> list[list[str]]:
    lines = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line[:1].isupper()]
    return [shlex.split(rest) for name, rest in lines if name == word]


def test_what_is_copied_from_the_checkout_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [
        source for words in instructions("COPY") if not words[0].startswith("--from")
        for source in words[:-1]
    ]  # fmt: skip
    assert {"models", "pipelines", "tilemapper", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source not in ignored


def test_the_image_runs_as_a_user_without_rights_and_holds_the_command():
    assert instructions("USER") == [["10001"]]
    assert "--uid 10001" in DOCKERFILE
    assert re.search(r'^ENTRYPOINT \["tilemapper"\]$', DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.index("useradd") < DOCKERFILE.index("USER 10001")


def test_cpu_and_cuda_are_told_apart_by_a_build_argument():
    assert ["TORCH_INDEX="] in instructions("ARG")
    torch = next(words for words in instructions("RUN") if words[-1] == "torch")
    assert any("${TORCH_INDEX:+--extra-index-url" in word for word in torch)


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_services_have_no_rights_and_no_way_out(name):
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert service["networks"] == ["inside"]
    assert "ports" not in service
    assert COMPOSE["networks"]["inside"]["internal"]


def test_the_batch_service_calls_the_command_with_options_that_it_has():
    command = COMPOSE["services"]["batch"]["command"]
    known = {option for parameter in batch.params for option in parameter.opts}
    assert command[0] == "batch"
    assert {word for word in command if word.startswith("--")} <= known
    scheduler = command[command.index("--scheduler") + 1]
    entry = COMPOSE["services"]["scheduler"]["entrypoint"]
    assert scheduler == f"tcp://scheduler:{entry[entry.index('--port') + 1]}"
    worker = COMPOSE["services"]["worker"]
    assert worker["entrypoint"][2] == scheduler
    assert worker["deploy"]["replicas"] >= 2
