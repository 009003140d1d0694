"""The ``tilemapper`` command: the group, its lazily imported commands, and how errors end.

Commands are named here and imported when called, so that ``tilemapper --help`` loads neither
torch, dask nor rasterio.
"""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import click

from tilemapper.cli.signals import end, farewell, leave, listen, received
from tilemapper.cli.streams import open_streams, outlive_readers_of_stderr
from tilemapper.errors import Interrupted, TilemapperError, TryAgainError, device_fault, shortage
from tilemapper.memory import keep_freed_memory
from tilemapper.raster.secrets import redacted

# name -> (module, attribute, one line for --help)
COMMANDS = {
    "render": ("tilemapper.cli.render", "render", "Render a satellite raster as a map raster."),
    "verify": ("tilemapper.cli.verify", "verify", "Check a rendered map, re-rendering samples."),
    "compare": ("tilemapper.cli.compare", "compare", "Look at a raster beside its map; figures."),
    "batch": ("tilemapper.cli.batch", "batch", "Render what is new of an archive of rasters."),
    "status": ("tilemapper.cli.status", "status", "Show what is done of an archive, and why not."),
    "train": ("tilemapper.cli.train", "train", "Train a model on pairs."),
    "evaluate": ("tilemapper.cli.evaluate", "evaluate", "Measure a model on held-out pairs."),
    "pairs": ("tilemapper.cli.pairs", "pairs", "Cut, check and pack training pairs."),
    "models": ("tilemapper.cli.models", "models", "List, show, import and export models."),
    "sample": ("tilemapper.cli.sample", "sample", "Write a synthetic georeferenced city."),
    "serve": ("tilemapper.cli.serve", "serve", "Show rasters and maps on a local page."),
    "info": ("tilemapper.cli.info", "info", "Versions, devices, drivers, models found."),
}

_FULL = (errno.ENOSPC, errno.EDQUOT)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        name_variables(command, f"TILEMAPPER_{cmd_name}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from the names above alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def name_variables(command: click.Command, prefix: str) -> None:
    """Names environment variables after flags; click alone names them after our own parameters."""
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None:
            flag = max(option.opts, key=len).lstrip("-")
            option.envvar = f"{prefix}_{flag}".upper().replace("-", "_")
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            name_variables(inner, f"{prefix}_{name}")


@click.group(
    cls=LazyGroup,
    context_settings={"auto_envvar_prefix": "TILEMAPPER", "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="tilemapper")
def cli() -> None:
    """Satellite rasters in, map rasters out: tiled, blended, georeferenced, resumable.

    Every option can also be given as an environment variable TILEMAPPER_<COMMAND>_<OPTION>.
    """


def run(command: click.Command, args: list[str] | None = None, **extra: Any) -> int:
    """Runs a command to its end; returns the exit code of the contract and says why on stderr."""

    def call() -> int:
        result = command.main(args=args, standalone_mode=False, **extra)
        return result if isinstance(result, int) else 0

    return outcome(call, args)


def outcome(call: Callable[[], int | None], args: list[str] | None = None) -> int:
    """The exit code that a call ends in; an error's one line goes to stderr."""
    try:
        code = call() or 0
        # A library swallowed it: what did not end well was interrupted, if it has not said so.
        if code and received() and code != Interrupted(received()).exit_code:
            return farewell(received())
        end()
        return code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show(said := io.StringIO())
        click.echo(without_secrets(said.getvalue(), args), err=True, nl=False)
        return error.exit_code
    except Interrupted as interrupted:
        return farewell(interrupted.exit_code - 128)
    except KeyboardInterrupt:  # Python's own handler: nobody listens under `rio`
        return farewell(signal.SIGINT)
    except BrokenPipeError:
        # The reader of stdout has gone; point it elsewhere, or the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # A library in whose callback it was raised may have made a failure of its own of it.
        return farewell(received()) if received() else _say(error, args)


def without_secrets(text: str, args: list[str] | None = None) -> str:
    """What may be said: no password or signature of an address in it, or of one that was typed.

    Nor what steers a terminal: names in it may come from a hostile file.
    """
    typed = sys.argv if args is None else args
    told = redacted(text, *(word for word in typed if "://" in word))
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in told)


def _say(error: Exception, args: list[str] | None) -> int:
    debug = "--debug" in (sys.argv if args is None else args)
    if debug or os.environ.get("TILEMAPPER_DEBUG"):
        raise error
    if not isinstance(error, TilemapperError):
        error = device_fault(error) or shortage(error) or error
    if isinstance(error, TilemapperError):
        click.echo(f"error: {without_secrets(' '.join(str(error).split()), args)}", err=True)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        # Outputs name themselves when their disk is full: this is what was said, or scratch.
        click.echo(
            f"error: stdout or temporary files: {error.strerror}; free some, or send them "
            "elsewhere, then run the same command again",
            err=True,
        )
        return TryAgainError.exit_code
    first = without_secrets(" ".join(str(error).split()), args) or "no message"
    click.echo(
        f"error: {type(error).__name__}: {first}; this is a defect of tilemapper, "
        "run again with --debug and report the traceback",
        err=True,
    )
    return 1


def _say_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    click.echo(f"warning: {without_secrets(' '.join(str(message).split()))}", err=True)


def keep_secrets(record: logging.LogRecord) -> bool:
    """A filter that takes passwords and signatures out of what is logged."""
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


def main() -> NoReturn:
    """Entry point of the console script."""
    open_streams()
    outlive_readers_of_stderr()
    # Before anything heavy is imported: a signal in the first second must find its handler.
    listen()
    warnings.showwarning = _say_warning
    if logging.lastResort is not None:  # what says our own log, as nobody has set up another
        logging.lastResort.addFilter(keep_secrets)
    # rasterio turns GDAL's complaints into errors, but not those of GDAL's own threads.
    os.environ.setdefault("CPL_LOG", os.devnull)
    keep_freed_memory()
    code = run(cli)
    if received():
        leave(code)
    sys.exit(code)
