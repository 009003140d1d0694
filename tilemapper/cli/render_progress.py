"""What a render says while it runs and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tilemapper.render.outcome import RenderResult
    from tilemapper.render.plan import Plan


class Progress:
    """A bar of tiles on stderr: done, tiles/s, time left. Nothing when ``silent``."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._bar: Any = None

    def start(self, tiles: int) -> None:
        """Shows the bar; not before the number of tiles is known."""
        if not self._silent:
            from tqdm import tqdm

            self._bar = tqdm(total=tiles, unit="tile", dynamic_ncols=True, smoothing=0.1)

    def tick(self, tiles: int) -> None:
        """Moves it on."""
        if self._bar is not None:
            self._bar.update(tiles)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def say_plan(plan: Plan, tiles: int, progress: Progress, quiet: bool, verbose: bool) -> None:
    """What a user should see of a plan, and its bar."""
    if not quiet:
        for notice in plan.source.notices:
            click.echo(notice, err=True)
    if verbose and not quiet:
        click.echo(
            f"{plan.source.width} x {plan.source.height} px, {len(plan.blocks)} block(s) of "
            f"{plan.block} px, {tiles} tile(s) to run (+{plan.redundant_share:.1%} at block "
            f"borders), {plan.device} {plan.precision}, batch {plan.batch_size}",
            err=True,
        )
    progress.start(tiles)


def summary(result: RenderResult) -> str:
    """The one line that ends a render."""
    rate = result.tiles / result.seconds if result.seconds else 0.0
    resumed = (
        f", {result.blocks_resumed} of {result.blocks} blocks stood already"
        if result.blocks_resumed
        else ""
    )
    return (
        f"{result.target}: {result.width} x {result.height} px, {result.tiles} tiles in "
        f"{result.seconds:.1f} s ({rate:.1f} tiles/s){resumed}"
    )
