"""Progress over an archive: JSON lines on stdout, words or a bar on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

LOG_EVERY_S = 30.0  # where no bar can be shown


def say_nothing_listed() -> None:
    """Says that there is no scene at all: no failure, but a night without work by mistake."""
    click.echo(
        "source.scenes lists no scene; is its disk mounted, and its pattern right?", err=True
    )


def reason_of(scene: str, error: str | None) -> str:
    """Why a scene was not rendered, by its name: of an option alone nobody could tell which."""
    return error if error and scene in error else f"{scene}: {error or 'no reason is known'}"


class ArchiveProgress:
    """Events as JSON lines on stdout, failures and progress on stderr."""

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self._json, self._quiet, self._verbose = as_json, quiet, verbose
        self._todo = self._ended = self._failed = self._pixels = 0
        self._begun = self._said = time.monotonic()
        self._bar: Any = None

    def tell(self, event: dict[str, Any]) -> None:
        """One event of the run."""
        if "tiles" in event:
            return
        if self._json:
            click.echo(json.dumps(event))
        if "todo" in event:
            self._start(event)
            return
        if event["state"] == "later":
            self._say(f"left for later: {event['error']}")
            return
        self._ended += 1
        self._failed += event["state"] == "failed"
        self._pixels += event["pixels"]
        if self._bar is not None:
            seconds = time.monotonic() - self._begun
            self._bar.set_postfix_str(f"{self._mpx(seconds)}, {self._failed} failed", refresh=False)
            self._bar.update(1)
        if event["state"] == "failed":
            self._say(f"failed: {reason_of(event['scene'], event['error'])}")
        elif self._verbose:
            what = event["output"] or reason_of(event["scene"], event["error"])
            self._say(f"{event['state']}: {what}")
        if self._bar is None and time.monotonic() - self._said > LOG_EVERY_S:
            self._said = time.monotonic()
            self._say(self._line())

    def _start(self, event: dict[str, Any]) -> None:
        self._todo = event["todo"]
        why = ", ".join(f"{count} {reason}" for reason, count in event["reasons"].items())
        gone = f", {event['gone']} are listed no more" if event["gone"] else ""
        self._say(
            f"{event['planned']} scenes, {self._todo} to render{gone}" + (f": {why}" if why else "")
        )
        if not event["listed"]:
            say_nothing_listed()
        if self._todo and not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._todo, unit="scene", dynamic_ncols=True)

    def _line(self) -> str:
        seconds = time.monotonic() - self._begun
        left_s = seconds / self._ended * (self._todo - self._ended)
        return (
            f"{self._ended} of {self._todo} scenes, {self._failed} failed, "
            f"{self._mpx(seconds)}, about {left_s / 60:.0f} min left"
        )

    def _mpx(self, seconds: float) -> str:
        return f"{self._pixels / 1e6:.1f} Mpx at {self._pixels / 1e6 / seconds:.2f} Mpx/s"

    def _say(self, line: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.clear()
        click.echo(line, err=True)

    def __enter__(self) -> ArchiveProgress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()
