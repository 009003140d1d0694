"""``tilemapper evaluate``: measures a model on pairs and prints the table."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilemapper.cli.options import debug_option, json_option

if TYPE_CHECKING:
    from tilemapper.api.evaluation import EvaluationResult


def _bounds(
    _ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """``METRIC=VALUE`` texts as a dict of finite numbers."""
    found = {}
    for text in values:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not name or not math.isfinite(found[name]):
            raise click.BadParameter(f"{text!r} is not METRIC=VALUE, such as psnr=25.")
    return found


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--direction", type=click.Choice(["AtoB", "BtoA"]), help="The model's by default.")
@click.option(
    "--split",
    type=click.Choice(["held-out", "all"]),
    default="held-out",
    show_default=True,
    help="held-out: the val folder, or the share that train holds out.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, max_open=True),
    help="Held out; by default the model's own share, 0.1 where its card has none.",
)
@click.option("--split-seed", type=click.IntRange(min=0), help="The model's own by default, or 0.")
@click.option("--pairs", type=click.IntRange(min=1), help="At most so many, evenly spread.")
@click.option(
    "--overlaps",
    type=click.Path(path_type=Path),
    help="JSON list of overlapping pairs; overlaps.json beside the data by default.",
)
@click.option(
    "--tiled/--whole",
    default=True,
    show_default=True,
    help="Through the render path, as users get it, or each image in one pass.",
)
@click.option(
    "--overlap",
    type=int,
    help="Of tiles, pixels.  [default: 64, or what a smaller tile allows]",
)
@click.option("--resize", type=click.IntRange(16, 8192), help="Shorter side given to the model.")
@click.option("--baseline", multiple=True, metavar="MODEL", help="A model to compare with.")
@click.option(
    "--palette",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Job file (see `pairs palette`) of the classes to judge by; the model's by default.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--min",
    multiple=True,
    callback=_bounds,
    metavar="METRIC=VALUE",
    help="Exit 1 when a headline figure is below (rmse_gcgan, _invented: above).",
)
@click.option("--sheet", type=click.Path(path_type=Path), help="PNG of best, median and worst.")
@click.option("--csv", type=click.Path(path_type=Path), help="Figures of each pair.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="ONNX network, never downloaded: of features (FID, KID) or of two images (LPIPS).",
)
@json_option
@debug_option
def evaluate(model: str, data: Path, as_json: bool, **options: Any) -> None:
    """Measure MODEL on the pairs of DATA, at 256 pixels and at native scale.

    Beside the model stand a constant colour and the models of --baseline. PSNR and SSIM say
    little about maps: look at road_f1, the IoUs, sharpness and what is _invented.
    """
    from tqdm import tqdm

    from tilemapper.api.evaluate import evaluate as measure
    from tilemapper.errors import ModelError

    figures: list[EvaluationResult] = []
    try:
        with tqdm(unit="pair", disable=not sys.stderr.isatty()) as bar:
            hooks: dict[str, Any] = {"on_begin": bar.reset, "tick": bar.update}
            result = measure(model, data, on_figures=figures.append, **hooks, **options)
    finally:
        # Also where the files fail; after them, for a stdout that is full must not cost them.
        for found in figures:
            click.echo(json.dumps(found.to_json()) if as_json else _table(found))
    if result.missed:
        raise ModelError(
            f"{model}: {' and '.join(result.missed)} is needed; train on, or change --min"
        )


def _table(result: EvaluationResult) -> str:
    """Figures down, rows of the evaluation across: mean and 95 % bootstrap interval."""
    evaluation, distances = result.evaluation, result.distances
    columns: list[tuple[str, list[str]]] = [("", [])]
    columns += [(f"{row.who} @{row.scale}", []) for row in evaluation.rows]
    pooled = [(row.metrics.mean(), row.metrics.intervals()) for row in evaluation.rows]
    for name in pooled[0][0]:
        columns[0][1].append(name)
        for (_, cells), (means, intervals) in zip(columns[1:], pooled, strict=True):
            low, high = intervals[name]
            cells.append(f"{means[name]:.3f} [{low:.3f} {high:.3f}]" if low == low else "-")
    widths = [max(map(len, (head, *cells))) for head, cells in columns]
    lines = [[head for head, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    text += [f"{name}  {value:.3f}" for name, value in distances.items()]
    return "\n".join([f"{len(evaluation.names)} pairs", *(line.rstrip() for line in text)])
