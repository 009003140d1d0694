"""How a training shows its progress, and how a signal ends it after a whole step."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from tilemapper.errors import Interrupted

if TYPE_CHECKING:
    from tilemapper.training.task import Progress


def first_process() -> bool:
    """Whether this is the one of torchrun's processes that speaks; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def leaving_cleanly() -> Iterator[list[int]]:
    """The number of the first signal, 0 while there is none; a second one ends at once.

    A step that is half done would leave networks and optimisers of different steps, so the first
    signal only asks the loop to leave.
    """
    stop = [0]
    names = (signal.SIGINT, signal.SIGTERM)

    def asked(number: int, _frame: object) -> None:
        if stop[0]:
            raise Interrupted(number)
        stop[0] = number
        click.echo("stopping after this step; once more to stop at once", err=True)

    before = [signal.signal(name, asked) for name in names]
    try:
        yield stop
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr with losses, images a second and the share of time waiting for data."""
    if not sys.stderr.isatty() or not first_process():
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(
        total=1000, bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
    ) as bar:

        def show(progress: Progress) -> None:
            bar.n = round(1000 * progress.done)
            losses = " ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
            bar.set_postfix_str(
                f"step {progress.step} {losses} {progress.images_per_s:.1f} images/s "
                f"waiting {progress.waiting_share:.1%}"
            )

        yield show
