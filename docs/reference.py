"""Writes docs/cli.md, the reference of all commands, from the commands themselves.

python docs/reference.py            writes it
python docs/reference.py --check    exit 1 if it is not up to date
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tilemapper.cli.main import COMMANDS, cli

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# Commands

Made by `python docs/reference.py` from the commands themselves; change those, not this page.

Progress and logs go to stderr, results to stdout. Every option can also be given as an environment
variable named after command and flag: `TILEMAPPER_RENDER_OVERLAP=96`.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed; one line on stderr: what was found, what is needed, what to do |
| 2 | wrong usage |
| 3 | a batch ended with failed scenes, the others are done |
| 75 | try again later: output locked, no worker left, disk full; finished work is kept |
| 130, 143 | interrupted; the same command goes on |
"""


def reference() -> str:
    """The whole page."""
    root = click.Context(cli, info_name="tilemapper")
    parts = [HEAD]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        if command is not None:
            parts += sections(command, root, name)
    return "\n".join(parts)


def sections(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    """A command's section; a group's, then those of its commands."""
    context = click.Context(command, parent=parent, info_name=name)
    depth = "##" if parent.parent is None else "###"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"{depth} {context.command_path}\n\n```text\n{usage}\n```\n\n{prose(command)}"
    options = [p for p in command.params if isinstance(p, click.Option)]
    if options:
        yield "| option | default | what it does |\n|---|---|---|"
        yield "\n".join(row(option, context) for option in options) + "\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from sections(found, context, inner)


def prose(command: click.Command) -> str:
    """A command's help: paragraphs as they are, those that click keeps as code."""
    text = inspect.cleandoc(command.help or "").split("\f")[0]
    found = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.removeprefix("\b").strip("\n")
            found.append(f"```text\n{lines}\n```")
        else:
            found.append(paragraph)
    return "\n\n".join(found) + "\n"


def row(option: click.Option, context: click.Context) -> str:
    """One line of the table."""
    words = "/".join([*option.opts, *option.secondary_opts])
    metavar = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    default = shown(option)
    repeats = option.multiple and "repeated" not in (option.help or "")
    said = [option.help or "", "May be repeated." if repeats else ""]
    said = ["Needed.", *said] if option.required else said
    cells = [f"`{words}{metavar}`", default, " ".join(part for part in said if part)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def shown(option: click.Option) -> str:
    """The default as a user would type it; empty for flags and for what is decided later."""
    value = option.default
    empty = (
        value in (None, "") or isinstance(value, bool) or not isinstance(value, str | int | float)
    )
    return "" if empty else f"`{value}`"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        current = TARGET.read_text() if TARGET.exists() else ""
        sys.exit(0 if current == reference() else "docs/cli.md: run python docs/reference.py")
    TARGET.write_text(reference())
