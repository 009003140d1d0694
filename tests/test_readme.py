"""What the README shows is what happens: its commands are run, its Python too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.test_pages import quicker
from tilemapper.cli.main import COMMANDS, cli, run

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README.read_text()) if kind == language]


def commands() -> list[list[str]]:
    """Every ``$ tilemapper …`` of the console blocks, in order."""
    lines = [line for text in blocks("console") for line in text.splitlines()]
    return [shlex.split(line[2:])[1:] for line in lines if line.startswith("$ tilemapper ")]


@pytest.mark.timeout(600)
def test_the_commands_work_one_after_another_and_the_python_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = commands()
    assert len(shown) > 5
    for args in shown:
        # Half an hour and a large city are for people; the command's path is the same with less.
        args = quicker(args, largest=1024 if "town.tif" in args else 320)  # it is cut into pairs
        code = run(cli, args)
        assert code == 0, (args, capsys.readouterr().err)
    for text in blocks("python"):
        (tmp_path / "map.tif").unlink(missing_ok=True)
        exec(compile(text, str(README), "exec"), {})


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if "://" not in target:
            assert (README.parent / target).exists(), target


def test_every_command_is_mentioned():
    text = README.read_text()
    missing = [name for name in COMMANDS if f"tilemapper {name}" not in text]
    assert not missing
