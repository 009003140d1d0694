"""``tilemapper evaluate``: measures a model on pairs and prints the table."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tilemapper.networks.model import Model
    from tilemapper.training.evaluate import Evaluation
    from tilemapper.training.images import RgbImage
    from tilemapper.training.pairs import PairSource
    from tilemapper.training.prediction import Predict


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
@click.option("--pairs", "most", type=click.IntRange(min=1), help="At most so many, evenly spread.")
@click.option(
    "--overlaps",
    type=click.Path(path_type=Path),
    help="JSON list of overlapping pairs; overlaps.json beside the data by default.",
)
@click.option("--tiled", is_flag=True, help="Through the render path, as users get it.")
@click.option("--overlap", type=int, default=64, show_default=True, help="With --tiled, pixels.")
@click.option("--resize", type=click.IntRange(16, 8192), help="Shorter side given to the model.")
@click.option("--baseline", multiple=True, metavar="MODEL", help="A model to compare with.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--min",
    "bounds",
    multiple=True,
    callback=_bounds,
    metavar="METRIC=VALUE",
    help="Exit 1 when a headline figure is below (rmse_gcgan, _invented: above).",
)
@click.option("--sheet", type=click.Path(path_type=Path), help="PNG of best, median and worst.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Figures of each pair.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="ONNX network of features: adds FID and KID (never downloaded).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show an error's traceback.")
def evaluate(model: str, data: Path, as_json: bool, **options: Any) -> None:
    """Measure MODEL on the pairs of DATA, at 256 pixels and at native scale.

    Beside the model stand a constant colour and the models of --baseline. PSNR and SSIM say
    little about maps: look at road_f1, the IoUs, sharpness and what is _invented.
    """
    from tilemapper.errors import ModelError
    from tilemapper.networks.model import open_model
    from tilemapper.raster.atomic import write_text_atomic
    from tilemapper.training.pairs import open_pairs
    from tilemapper.training.sheet import write_sheet

    opened = open_model(model)
    direction = options["direction"] or opened.card.direction
    source = open_pairs(data, direction=direction)
    if options["share"] is None:
        options["share"] = 0.1 if opened.card.split_share is None else opened.card.split_share
    if options["split_seed"] is None:
        options["split_seed"] = opened.card.split_seed or 0
    indices = _chosen(source, data, options)
    predict = _predictor(opened, options)
    evaluation, distances = _measured(predict, source, indices, direction, options)
    if options["csv_path"]:
        write_text_atomic(options["csv_path"], evaluation.to_csv())
    if options["sheet"]:
        write_sheet(options["sheet"], evaluation, predict, source)
    found = {
        "model": opened.card.name, "data": str(data), "split": options["split"],
        "direction": direction, "tiled": options["tiled"],
        **evaluation.to_json(), **distances,
    }  # fmt: skip
    click.echo(json.dumps(found) if as_json else _table(evaluation, distances))
    missed = evaluation.below(options["bounds"])
    if missed:
        raise ModelError(f"{model}: {' and '.join(missed)} is needed; train on, or change --min")


def _measured(
    predict: Predict,
    source: PairSource,
    indices: list[int],
    direction: str,
    options: dict[str, Any],
) -> tuple[Evaluation, dict[str, float]]:
    from tqdm import tqdm

    from tilemapper.networks.model import open_model
    from tilemapper.training.evaluate import evaluate_model
    from tilemapper.training.features import FeatureDistances
    from tilemapper.training.legend import MAPS_LEGEND
    from tilemapper.training.metrics import check_figures

    legend = MAPS_LEGEND if direction == "AtoB" else None
    check_figures(options["bounds"], legend)
    distances = FeatureDistances(options["weights"]) if options["weights"] else None
    baselines = {name: _predictor(open_model(name), options) for name in options["baseline"]}
    with tqdm(total=len(indices), unit="pair", disable=not sys.stderr.isatty()) as bar:

        def on_pair(made: RgbImage, true: RgbImage) -> None:
            if distances:
                distances.add(made, true)
            bar.update()

        evaluation = evaluate_model(
            predict, source, indices, baselines=baselines, legend=legend, on_pair=on_pair
        )
    return evaluation, distances.figures() if distances else {}


def _chosen(source: PairSource, data: Path, options: dict[str, Any]) -> list[int]:
    from tilemapper.training.heldout import spread
    from tilemapper.training.pairs import split_pairs

    most = options["most"] or len(source)
    if options["split"] == "all":
        return spread(range(len(source)), most)
    beside = (folder / "overlaps.json" for folder in (data, data.parent))
    overlaps = options["overlaps"] or next((path for path in beside if path.is_file()), None)
    split = split_pairs(
        source, share=options["share"], overlaps=overlaps, seed=options["split_seed"]
    )
    return spread(split.held_out, most)


def _predictor(model: Model, options: dict[str, Any]) -> Predict:
    from tilemapper.render.array import render_array
    from tilemapper.render.devices import choose_device
    from tilemapper.render.engine import open_engine
    from tilemapper.training.prediction import Prediction, at_size, whole_image_predictor

    device = choose_device(options["device"])
    if options["tiled"]:
        engine = open_engine(model, device=device)

        def predict_tiled(image: RgbImage) -> Prediction:
            rendered = render_array(image, engine, overlap=options["overlap"])
            return Prediction(rendered.rgb, rendered.expected)

        predict: Predict = predict_tiled
    else:
        predict = whole_image_predictor(model, device=device)
    return at_size(predict, options["resize"]) if options["resize"] else predict


def _table(evaluation: Evaluation, distances: dict[str, float]) -> str:
    """Figures down, rows of the evaluation across: mean and 95 % bootstrap interval."""
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
