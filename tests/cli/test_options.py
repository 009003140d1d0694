"""Options that several commands share are the same in all of them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from tilemapper.cli.main import cli


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def helps(flag: str) -> dict[str, set[str]]:
    """What is said of a flag, and the commands that say so."""
    found: dict[str, set[str]] = {}
    for command in commands(cli):
        for option in command.params:
            if isinstance(option, click.Option) and flag in option.opts:
                found.setdefault(option.help or "", set()).add(command.name or "")
    return found


def test_debug_and_json_are_the_shared_options():
    assert len(helps("--debug")) == 1
    lines = {names.pop() for names in helps("--json").values() if len(names) == 1}
    assert lines == {"batch"}  # which prints one object a line
    assert len(helps("--json")) == 2
