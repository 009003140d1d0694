"""``tilemapper batch JOB.toml``: renders what is new of an archive."""

from __future__ import annotations

import functools
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilemapper.cli.archive_progress import ArchiveProgress, reason_of, say_nothing_listed
from tilemapper.cli.options import OrWord, debug_option, talk_options
from tilemapper.errors import TryAgainError

if TYPE_CHECKING:
    from tilemapper.archive.estimate import ArchiveEstimate
    from tilemapper.archive.job import ArchiveJob
    from tilemapper.archive.monitor import Monitor
    from tilemapper.archive.spreading import Spread
    from tilemapper.archive.summary import RunSummary

_LAST_S = 5.0  # for the figures of a run whose scene hangs


def _shard(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    """``2/8`` as (2, 8)."""
    index, _, count = value.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"{value!r} is not of the form I/N with I from 1 to N.")
    return int(index), int(count)


def _workers(
    _ctx: click.Context, _param: click.Parameter, value: int | str | None
) -> int | str | None:
    """Refuses a number that is none also where nothing is to do and nobody asks for it."""
    if isinstance(value, int) and value < 1:
        raise click.BadParameter(f"{value!r}: must be auto, or a number from 1 on.")
    return value


@click.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why; write nothing.")
@click.option(
    "--shard",
    callback=_shard,
    default="1/1",
    show_default=True,
    metavar="I/N",
    help="Only the I-th of N parts, counted from 1; the same scene is always in the same part.",
)
@click.option("--retry-failed", is_flag=True, help="Also scenes that failed and did not change.")
@click.option(
    "--workers",
    callback=_workers,
    type=OrWord(int, "auto"),
    help="Processes to spread scenes over; run.workers of the job if not given.",
)
@click.option("--scheduler", metavar="ADDR|FILE", help="A running dask cluster, as for render.")
@click.option("--insecure", is_flag=True, help="Take a scheduler elsewhere without TLS.")
@click.option(
    "--metrics",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write OpenMetrics text for monitoring here.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON lines: the plan, each scene, a summary."
)
@talk_options
@debug_option
def batch(
    job: Path,
    dry_run: bool,
    shard: tuple[int, int],
    retry_failed: bool,
    workers: int | str | None,
    scheduler: str | None,
    insecure: bool,
    metrics: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Render every scene of the archive JOB.toml that is new, changed or not done yet.

    What is done is known by a ledger beside the outputs: run it every night. Killed or
    interrupted, the same command goes on where it stopped. Exit codes: 0 all done, 3 some scenes
    failed, 75 some are left for a later run.

    \b
    tilemapper batch nightly.toml --dry-run
    tilemapper batch nightly.toml --json --metrics /var/lib/node_exporter/tilemapper.prom
    tilemapper batch nightly.toml --shard 3/8
    """  # noqa: D301 (\b is click's mark for lines to keep)
    from tilemapper.archive.jobfile import load_job
    from tilemapper.archive.leaving import check_extras, leave
    from tilemapper.networks.model import open_model

    checked = load_job(job)
    check_extras(checked)
    model = open_model(checked.render.model)
    if dry_run:
        from tilemapper.archive.estimate import estimate
        from tilemapper.archive.units import listed

        scenes = listed(checked, model.card.gsd_m)
        if not scenes:
            say_nothing_listed()
        cost = estimate(checked, model, scenes, shard=shard, retry_failed=retry_failed)
        _print_estimate(cost, as_json)
        return 0
    from tilemapper.archive.monitor import Monitor
    from tilemapper.archive.run import run_archive

    monitor = Monitor(checked, metrics)

    def tell(event: dict[str, Any]) -> None:
        monitor.tell(event)
        progress.tell(event)

    shown = ArchiveProgress(as_json=as_json, quiet=quiet, verbose=verbose)
    with monitor.watching(), shown as progress:
        summary = run_archive(
            checked, model, shard=shard, retry_failed=retry_failed, tell=tell,
            spread=functools.partial(_spread, checked, workers, scheduler, insecure),
            stalled=functools.partial(_leave, monitor),
        )  # fmt: skip
    leave(checked, summary, metrics=metrics)
    _print_summary(checked, summary, as_json, quiet)
    return summary.exit_code


def _leave(monitor: Monitor, line: str) -> None:
    """Ends a process whose main thread hangs in a scene; nothing gentler would."""
    click.echo(f"error: {line}", err=True)
    # What the scene hangs in may be the very disk that figures are written to.
    last = threading.Thread(target=monitor.leave, args=(TryAgainError.exit_code,), daemon=True)
    last.start()
    last.join(_LAST_S)
    os._exit(TryAgainError.exit_code)


def _spread(
    job: ArchiveJob, workers: int | str | None, scheduler: str | None, insecure: bool
) -> Spread | None:
    """How scenes are spread; None for this process alone."""
    from tilemapper.archive.spreading import Spread

    if scheduler is None and workers is None:
        scheduler = job.run.scheduler  # what is typed wins over the job
    device = job.render.device
    if scheduler is not None:
        return Spread(scheduler=scheduler, insecure=insecure, device=device)
    from tilemapper.render.division import worker_count

    count = worker_count(job.run.workers if workers is None else workers, device)
    if not count:
        return None
    if device == "auto":
        device = "cuda" if _has_gpu() else "cpu"
    return Spread(workers=count, device=device)


def _has_gpu() -> bool:
    from tilemapper.render.division import visible_gpus

    return bool(visible_gpus())


def _print_summary(job: ArchiveJob, summary: RunSummary, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps({"summary": summary.to_json()}))
        return
    if not quiet:
        # Those of this run were named when they happened.
        for failure in summary.failures[: summary.failed_before]:
            said = reason_of(failure["scene"], failure["error"])
            click.echo(f"failed before: {said}", err=True)
    if summary.stopped:
        click.echo(f"stopped early: {summary.stopped}; run the same command again", err=True)
    click.echo(
        f"{job.name}: {summary.done} rendered, {summary.already_done} stood already, "
        f"{summary.failed} failed, {summary.skipped} skipped, {summary.left} left; "
        f"{summary.pixels / 1e6:.1f} Mpx in {summary.seconds:.1f} s"
    )


def _print_estimate(cost: ArchiveEstimate, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(cost.to_json()))
        return
    click.echo(f"scenes   {cost.scenes}, {cost.todo} to render")
    for reason, count in cost.reasons.items():
        click.echo(f"           {count} {reason}")
    click.echo(f"failed   {cost.failed_before} before, left alone without --retry-failed")
    if cost.held:
        click.echo(f"held     {cost.held} by another run, or by a server that does not answer")
    click.echo(f"tiles    {cost.tiles}, {cost.pixels / 1e6:.1f} Mpx, from {cost.sampled} headers")
    click.echo(f"time     {cost.hours:.2f} h")
    click.echo(f"disk     {cost.disk_bytes / 1e9:.2f} GB")
    for example in cost.examples:
        click.echo(f"  {example['scene']} -> {example['output']} ({example['reason']})")
