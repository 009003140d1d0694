"""Writes the reference pages from the code: commands, and keys of model cards and job files.

python docs/reference.py            writes them
python docs/reference.py --check    exit 1 if one is not up to date
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tilemapper.archive.job import Mosaic, Output, Run, Source
from tilemapper.archive.rendering import Render
from tilemapper.cli.main import COMMANDS, cli
from tilemapper.networks.card import ModelCard
from tilemapper.training.config import (
    AugmentConfig,
    DataConfig,
    LossesConfig,
    NetworksConfig,
    TrainerConfig,
    TrainingJob,
)

FOLDER = Path(__file__).parent
MADE = "Made by `python docs/reference.py` from the code; change that, not this page.\n"
CLI_HEAD = f"""# Commands

{MADE}
Progress and logs go to stderr, results to stdout. Every option can also be given as an environment
variable named after command and flag: `TILEMAPPER_RENDER_OVERLAP=96`.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed; one line on stderr: what was found, what is needed, what to do |
| 2 | wrong usage |
| 3 | a batch ended with failed scenes, the others are done |
| 75 | try again later: output locked, no worker left, disk full, GPU lost, \
too many open files, a server in trouble; finished work is kept |
| 130, 143 | interrupted; the same command goes on, `train` with `--resume` |
"""
KEYS_HEAD = f"""# Keys of model cards and job files

{MADE}
All tables are closed: an unknown key is refused, with the nearest known one named. What the files
are for is said in [models](models.md), [training](training.md) and [archives](archive.md).
"""
TABLES: tuple[tuple[str, str, tuple[tuple[str, type[BaseModel]], ...]], ...] = (
    ("Model card", "`model.toml` in a model's folder.", (("", ModelCard),)),
    (
        "Archive job",
        'A TOML file with `kind = "archive"`, for `tilemapper batch`. Without a `name` it has the '
        "file's.",
        (
            ("source", Source),
            ("output", Output),
            ("render", Render),
            ("run", Run),
            ("mosaic", Mosaic),
        ),
    ),
    (
        "Training job",
        'A TOML file with `kind = "training"`, for `tilemapper train --config`; any key can be set '
        "with `--set section.key=value` too.",
        (
            ("", TrainingJob),
            ("data", DataConfig),
            ("augment", AugmentConfig),
            ("networks", NetworksConfig),
            ("losses", LossesConfig),
            ("trainer", TrainerConfig),
        ),
    ),
)


def cli_page() -> str:
    """The reference of all commands."""
    root = click.Context(cli, info_name="tilemapper")
    parts = [CLI_HEAD]
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
        yield "\n".join(option_row(option, context) for option in options) + "\n"
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


def option_row(option: click.Option, context: click.Context) -> str:
    """One option as a line of a table."""
    words = "/".join([*option.opts, *option.secondary_opts])
    metavar = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    repeats = option.multiple and "repeated" not in (option.help or "")
    said = [option.help or "", "May be repeated." if repeats else ""]
    said = ["Needed.", *said] if option.required else said
    return line(f"`{words}{metavar}`", shown(option), " ".join(part for part in said if part))


def shown(option: click.Option) -> str:
    """The default as a user would type it; empty for flags and for what is decided later."""
    value = option.default
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return f"`{value}`" if plain and value != "" else ""


def keys_page() -> str:
    """The reference of all keys."""
    parts = [KEYS_HEAD]
    for title, about, tables in TABLES:
        parts.append(f"## {title}\n\n{about}\n")
        for name, table in tables:
            parts += key_table(name, table)
    return "\n".join(parts)


def key_table(name: str, table: type[BaseModel]) -> Iterator[str]:
    """One table: what its docstring says, and a line for each key."""
    if name:
        yield f"### [{name}]\n"
    about = inspect.cleandoc(table.__doc__ or "").removeprefix(f"``[{name}]``: ")
    yield about.replace("``", "`").replace("`template.FIELDS`", "[archives](archive.md)") + "\n"
    yield "| key | type | default |\n|---|---|---|"
    inner = [f for f in table.model_fields.items() if not is_table(f[1])]
    yield (
        "\n".join(line(f"`{key}`", kind(field.annotation), value(field)) for key, field in inner)
        + "\n"
    )


def is_table(field: FieldInfo) -> bool:
    """Whether a key is a table with a section of its own."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


WORDS = {str: "text", int: "integer", float: "number", bool: "true, false", date: "date"}


def kind(given: object) -> str:
    """A type in words that a writer of TOML knows."""
    origin, inner = get_origin(given), get_args(given)
    if origin is Annotated:
        return kind(inner[0])
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(kind(one) for one in inner if one is not NoneType))
    if origin is tuple:
        some = [one for one in inner if one is not Ellipsis]
        count = "" if len(some) < len(inner) else f"{len(some)} "
        return f"list of {count}{', '.join(dict.fromkeys(map(kind, some)))}"
    if origin is dict:
        return f"table of {kind(inner[1])}"
    if isinstance(given, type) and issubclass(given, BaseModel):
        return f"{{{', '.join(given.model_fields)}}}"
    return WORDS.get(given, str(given))  # type: ignore[call-overload]


def value(field: FieldInfo) -> str:
    """A key's default as TOML would have it."""
    if field.is_required():
        return "needed"
    default = field.default
    if default is None or default in ("", (), {}):
        return ""
    text = str(list(default)) if isinstance(default, tuple) else str(default)
    return f"`{text.lower() if isinstance(default, bool) else text}`"


def line(*cells: str) -> str:
    """A line of a Markdown table."""
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


PAGES = {"cli.md": cli_page, "keys.md": keys_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        if "--check" not in sys.argv[1:]:
            (FOLDER / page).write_text(make())
        elif (FOLDER / page).read_text() != make():
            sys.exit(f"docs/{page}: not up to date; run python docs/reference.py")
