"""``tilemapper train``: one run, or a sweep over ``--set`` values that ends with one table."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilemapper.cli.options import debug_option, json_option
from tilemapper.cli.signals import farewell
from tilemapper.cli.train_progress import first_process, leaving_cleanly, progress_bar
from tilemapper.errors import Interrupted, TryAgainError

if TYPE_CHECKING:
    from tilemapper.training.run import RunResult

SHOWN = ("road_f1", "water_iou", "park_iou", "mean_iou", "acc5", "psnr", "ssim", "loss")


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--preset", help="classic, fast (default), best or cyclegan.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML job file over the preset.")
@click.option("--direction", type=click.Choice(["AtoB", "BtoA"]), help="A: left or folder A.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the job file, such as trainer.batch=8; 8,16 runs both.",
)
@click.option("--resume", is_flag=True, help="Go on where the run in --out stopped.")
@click.option(
    "--budget-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop cleanly after so long; the length of the run where the job names none.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
@click.option("--seed", type=click.IntRange(min=0), help="Of weights, order and augmentation.")
@json_option
@debug_option
def train(
    data: Path,
    out: Path,
    settings: tuple[str, ...],
    direction: str | None,
    seed: int | None,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model on the pairs in DATA (see `tilemapper pairs`).

    DATA is a folder of side-by-side images, one with folders A and B, or a .npz file. The run
    folder gets checkpoints, figures, samples, report.html and the finished model. Under torchrun
    each process takes its part of the batch.
    """
    from tilemapper.training.settings import parse_overrides

    given = [*settings]
    given += [f"data.direction={direction}"] if direction else []
    given += [f"trainer.seed={seed}"] if seed is not None else []
    combinations = list(parse_overrides(given))
    if threads:
        import torch

        torch.set_num_threads(threads)
    options["command"] = shlex.join(["tilemapper", *sys.argv[1:]])
    if len(combinations) == 1:
        result = _run(data, out, combinations[0], options, is_sweep=False)
        _say(json.dumps(_plain(result)) if as_json else _summary(result))
        return
    _sweep(data, out, combinations, options, as_json=as_json)


def _sweep(
    data: Path,
    out: Path,
    combinations: list[dict[str, str]],
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Runs all combinations; what is done when one fails is shown before its error."""
    from tilemapper.training.jobfile import read_job
    from tilemapper.training.making import check_alone
    from tilemapper.training.runfolder import CONFIG_NAME

    varied = [key for key in combinations[0] if len({c[key] for c in combinations}) > 1]
    runs = []
    for combination in combinations:
        name = ",".join(f"{key.rpartition('.')[2]}={combination[key]}" for key in varied)
        # Escaped, so that two names never become one.
        folder = out / name.replace("%", "%25").replace("/", "%2F")
        # A sweep that was stopped has runs that never began.
        begun = options["resume"] and (folder / CONFIG_NAME).exists()
        chosen = {**options, "resume": begun}
        named = {key: chosen[key] for key in ("preset", "config", "resume", "budget_minutes")}
        # All of them before the first: hours later is late to learn of a value that is none.
        check_alone(read_job(folder, settings=combination, **named), resume=begun)
        runs.append((name, folder, combination, chosen))
    rows: list[tuple[str, RunResult]] = []
    try:
        for name, folder, combination, chosen in runs:
            rows.append((name, _run(data, folder, combination, chosen, is_sweep=True)))
    finally:
        if rows:
            _show_sweep(out, rows, as_json=as_json)


def _show_sweep(out: Path, rows: list[tuple[str, RunResult]], *, as_json: bool) -> None:
    if first_process():
        from tilemapper.api.run_page import write_sweep_page

        write_sweep_page(out, [(name, run.folder, run.figures) for name, run in rows])
    if as_json:
        _say(json.dumps({"runs": [{"settings": n, **_plain(r)} for n, r in rows]}))
    else:
        _say(_sweep_table(rows))


def _say(text: str) -> None:
    if first_process():
        click.echo(text)


def _run(
    data: Path, out: Path, settings: dict[str, str], options: dict[str, Any], *, is_sweep: bool
) -> RunResult:
    from tilemapper.api.train import train_and_report

    try:
        with leaving_cleanly() as stop, progress_bar() as progress:
            result = train_and_report(
                data,
                out,
                settings=settings,
                stop=lambda: stop[0] != 0,
                progress=progress,
                notice=lambda line: click.echo(line, err=True),
                **options,
            )
        if stop[0]:
            raise Interrupted(stop[0])
        if result.stopped:
            raise TryAgainError(
                f"{out}: another process of this run was stopped, at step {result.step}; "
                f"{_again(out, is_sweep=is_sweep)} to go on"
            )
    except Interrupted as stopped:
        number = stopped.exit_code - 128
        code = farewell(number, f"{_again(out, is_sweep=is_sweep)} to go on")
        click.get_current_context().exit(code)
    return result


def _again(out: Path, *, is_sweep: bool) -> str:
    from tilemapper.training.runfolder import CONFIG_NAME

    # A run that was still reading its pairs has nothing to resume; a sweep begins what has not.
    begun = is_sweep or (out / CONFIG_NAME).exists()
    return "run the same command with --resume" if begun else "run the same command"


def _summary(result: RunResult) -> str:
    how = "finished" if result.finished else "stopped by the budget, --resume goes on"
    figures = ", ".join(f"{n} {result.figures[n]:.3f}" for n in SHOWN if n in result.figures)
    figures = figures or "nothing held out"
    return f"{result.folder}: step {result.step}, {how}; {figures}; model {result.model}"


def _plain(result: RunResult) -> dict[str, Any]:
    return {
        "run": str(result.folder),
        "step": result.step,
        "finished": result.finished,
        "model": str(result.model) if result.model else None,
        "figures": {n: v if v == v else None for n, v in result.figures.items()},
    }


def _sweep_table(rows: list[tuple[str, RunResult]]) -> str:
    names = [n for n in SHOWN if any(n in result.figures for _, result in rows)]
    width = max(len("run"), *(len(name) for name, _ in rows))
    lines = [f"{'run':{width}}  {'step':>7}" + "".join(f"  {n:>9}" for n in names)]
    for name, result in rows:
        cells = "".join(f"  {result.figures.get(n, float('nan')):9.4f}" for n in names)
        lines.append(f"{name:{width}}  {result.step:7d}{cells}")
    return "\n".join(lines)
