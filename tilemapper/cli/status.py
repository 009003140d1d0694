"""``tilemapper status JOB.toml``: what the ledger of an archive says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilemapper.cli.archive_progress import reason_of
from tilemapper.cli.options import debug_option, json_option

if TYPE_CHECKING:
    from tilemapper.archive.estimate import ArchiveEstimate
    from tilemapper.archive.job import ArchiveJob


@click.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--next/--no-next",
    "show_next",
    default=None,
    help="Whether to list the archive and say what the next run would do; the default does, unless "
    "the list comes on stdin.",
)
@json_option
@debug_option
def status(job: Path, show_next: bool | None, as_json: bool) -> None:
    """Show what is done of the archive JOB.toml, what failed and why, and what is to come.

    The archive is listed and compared with the ledger, as `tilemapper batch --dry-run` does;
    --no-next looks at the ledger alone.
    """
    from tilemapper.archive.jobfile import load_job
    from tilemapper.archive.status import status as status_of

    checked = load_job(job)
    found = status_of(checked)
    if show_next is None:
        show_next = "-" not in checked.source.scenes
    upcoming, unknown = _upcoming(checked) if show_next else (None, None)
    if as_json:
        values = found.to_json()
        values["next"] = None if upcoming is None else upcoming.to_json()
        values["next_unknown"] = unknown
        click.echo(json.dumps(values))
        return
    click.echo(f"job      {found.job}, ledger {found.ledger}")
    if not found.counts:
        click.echo("         never ran")
    for state, count in found.counts.items():
        click.echo(f"{state:8} {count}")
    if found.gone:
        click.echo(f"gone     {found.gone} no longer in the archive")
    click.echo(
        f"output   {found.output_bytes / 1e6:.1f} MB, {found.pixels / 1e6:.1f} Mpx in "
        f"{found.seconds:.1f} s"
    )
    for run in found.runs:
        click.echo(f"running  {run}")
    for failure in found.failures:
        said = reason_of(failure["scene"], failure["error"])
        click.echo(f"failed   {said} ({failure['attempts']} attempts)")
    if upcoming is not None:
        why = ", ".join(f"{count} {reason}" for reason, count in upcoming.reasons.items())
        click.echo(f"next     {upcoming.todo} to render" + (f": {why}" if why else ""))
    if unknown is not None:
        click.echo(f"next     unknown: {unknown}")


def _upcoming(job: ArchiveJob) -> tuple[ArchiveEstimate | None, str | None]:
    """What the next run would do, or why that is not known: the ledger can be read all the same."""
    from tilemapper.archive.estimate import estimate
    from tilemapper.archive.units import listed
    from tilemapper.errors import TilemapperError
    from tilemapper.networks.model import open_model

    try:
        model = open_model(job.render.model)
        return estimate(job, model, listed(job, model.card.gsd_m)), None
    except TilemapperError as error:
        return None, str(error)
