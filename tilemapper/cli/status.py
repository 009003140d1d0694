"""``tilemapper status JOB.toml``: what the ledger of an archive says."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tilemapper.cli.options import debug_option, json_option


@click.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--next", "show_next", is_flag=True, help="Also what the next run would do.")
@json_option
@debug_option
def status(job: Path, show_next: bool, as_json: bool) -> None:
    """Show what is done of the archive JOB.toml, what failed and why.

    --next lists the archive and compares it with the ledger, as `tilemapper batch --dry-run`.
    """
    from tilemapper.archive.jobfile import load_job
    from tilemapper.archive.status import status as status_of

    checked = load_job(job)
    found = status_of(checked)
    upcoming = None
    if show_next:
        from tilemapper.archive.estimate import estimate
        from tilemapper.archive.units import listed
        from tilemapper.networks.model import open_model

        model = open_model(checked.render.model)
        upcoming = estimate(checked, model, listed(checked, model.card.gsd_m))
    if as_json:
        values = found.to_json()
        values["next"] = None if upcoming is None else upcoming.to_json()
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
        click.echo(f"failed   {failure['error']} ({failure['attempts']} attempts)")
    if upcoming is not None:
        why = ", ".join(f"{count} {reason}" for reason, count in upcoming.reasons.items())
        click.echo(f"next     {upcoming.todo} to render" + (f": {why}" if why else ""))
