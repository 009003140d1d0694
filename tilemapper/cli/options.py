"""Types and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Comma-separated numbers, such as ``1,2,3``; ``count`` of them, when it is given."""

    def __init__(
        self, kind: type[int] | type[float], metavar: str, count: int | None = None
    ) -> None:
        self.name, self._kind, self._count = metavar, kind, count

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            parsed = tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        if self._count is not None and len(parsed) != self._count:
            self.fail(f"{value!r}: {self._count} numbers are needed, {self.name}", param, ctx)
        return parsed


class OrWord(click.ParamType):  # type: ignore[type-arg]
    """A number, or one of a few words such as ``auto`` (None in the library)."""

    def __init__(self, kind: type[int] | type[float], *words: str) -> None:
        self._kind, self._words = kind, words
        self.name = "|".join([*words, "N" if kind is int else "M"])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | str:
        """The word as it is, or the number."""
        if isinstance(value, int | float) or value in self._words:
            return value  # type: ignore[no-any-return]
        try:
            number: int | float = self._kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' or '.join(self._words)}", param, ctx)
        return number


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """``KEY=VALUE``, the value kept as it was typed."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Key in upper case, as GDAL has them, and value."""
        if isinstance(value, tuple):
            return value
        key, separator, text = str(value).partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not of the form KEY=VALUE", param, ctx)
        return key.upper(), text


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: one object on stdout instead of words."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--debug``: a traceback on errors; read by `tilemapper.cli.main.run`."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
    )(command)


def talk_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-v`` and ``-q``: how much is said on stderr."""
    command = click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")(command)
    quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors.")
    return quiet(command)
