"""``tilemapper models``: list, show, import and export models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilemapper.cli.options import debug_option, json_option

if TYPE_CHECKING:
    from tilemapper.networks.model import Model


@click.group("models")
def models() -> None:
    """List, show, import and export models.

    A model is a folder with model.toml, its weights and a README.md. It is found by path, or by
    name in $TILEMAPPER_MODELS and among the shipped ones.
    """


def _metres(_ctx: click.Context, _parameter: click.Parameter, value: str) -> float | None:
    """``none``, or metres a pixel as a float above 0."""
    if value == "none":
        return None
    try:
        metres = float(value)
    except ValueError:
        metres = math.nan
    if not 0 < metres <= 10_000:
        raise click.BadParameter(f"{value!r} is neither a number of metres above 0 nor none.")
    return metres


@models.command("list")
@json_option
@debug_option
def list_command(as_json: bool) -> None:
    """List the models that are found by name."""
    from tilemapper.networks.model import find_models

    found, faults = find_models()
    for fault in faults:
        click.echo(f"warning: {fault}", err=True)
    if as_json:
        rows = [_card_json(model) for model in found]
        click.echo(json.dumps({"models": rows, "damaged": [str(fault) for fault in faults]}))
        return
    if not found:
        click.echo("no models found; name a folder of them in TILEMAPPER_MODELS", err=True)
    for model in found:
        card = model.card
        gsd = f"{card.gsd_m:g} m" if card.gsd_m else "any GSD"
        kind = f"{card.head} of {len(card.palette)}" if card.palette else card.head
        click.echo(f"{model.folder.name}\t{card.architecture}\t{kind}\t{gsd}\t{model.folder}")


@models.command("show")
@click.argument("name")
@json_option
@debug_option
def show_command(name: str, as_json: bool) -> None:
    """Show a model's card, and check its weights against it."""
    from tilemapper.networks.card import card_text
    from tilemapper.networks.model import open_model

    model = open_model(name)
    parameters = sum(tensor.numel() for tensor in model.generator().parameters())
    if as_json:
        click.echo(json.dumps(_card_json(model) | {"parameters": parameters}))
        return
    click.echo(card_text(model.card), nl=False)
    click.echo(f"{model.folder}: weights in order, {parameters:,} parameters", err=True)


@models.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out_dir", type=click.Path(path_type=Path))
@click.option(
    "--dialect",
    type=click.Choice(["junyanz", "aladdinpersson", "aladdinpersson-reflect"]),
    required=True,
    help="Whose layout it is; -reflect: copies that reflect in the bottleneck too.",
)
@click.option(
    "--gsd-m",
    metavar="M|none",
    callback=_metres,
    required=True,
    help="Metres a pixel it was trained at; none: unknown, sources are rendered native.",
)
@click.option(
    "--direction",
    type=click.Choice(["AtoB", "BtoA"]),
    required=True,
    help="Which half of its pairs it paints from; for the card.",
)
@click.option(
    "--norm-stats",
    type=click.Choice(["running", "instance"]),
    required=True,
    help="Frozen statistics, or each tile's own (as junyanz tests by default).",
)
@click.option("--licence", default="", help="Terms of the weights, for the card.")
@json_option
@debug_option
def import_command(checkpoint: Path, out_dir: Path, as_json: bool, **options: Any) -> None:
    """Import CHECKPOINT of another project as the model folder OUT_DIR.

    No code in the checkpoint is run. What cannot be read from it has to be said: nothing is
    guessed.
    """
    from tilemapper.networks.importers import import_checkpoint

    model = import_checkpoint(checkpoint, out_dir, **options)
    click.echo(json.dumps(_card_json(model)) if as_json else str(model.folder))


@models.command("export")
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@json_option
@debug_option
def export_command(name: str, out: Path, overwrite: bool, as_json: bool) -> None:
    """Export the model NAME to OUT: an ONNX file (OUT.onnx), or a model folder otherwise."""
    from tilemapper.errors import TargetError
    from tilemapper.networks.card import CARD_NAME
    from tilemapper.networks.model import open_model, save_model
    from tilemapper.raster.atomic import write_bytes_atomic

    model = open_model(name)
    if (out.exists() or out.is_symlink()) and not overwrite:
        raise TargetError(f"{out}: exists already; choose another path or give --overwrite")
    if out.suffix.lower() == ".onnx":
        from tilemapper.networks.export import onnx_model

        write_bytes_atomic(out, onnx_model(model))
    else:
        # A model is replaced, not what else a folder may hold: its README.md would be lost.
        if out.is_dir() and not (out / CARD_NAME).exists() and any(out.iterdir()):
            raise TargetError(
                f"{out}: holds files and no {CARD_NAME}, a model or an empty folder can be "
                "replaced; choose another path"
            )
        readme = _readme(model)
        save_model(out, model.card, model.generator(), readme, replace=overwrite)
    click.echo(json.dumps({"model": model.card.name, "out": str(out)}) if as_json else str(out))


def _readme(model: Model) -> str:
    """The model's own README.md; one line where it has none, or a link, which may lead anywhere."""
    path = model.folder / "README.md"
    if path.is_symlink() or not path.is_file():
        return f"# {model.card.name}\n"
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)


def _card_json(model: Model) -> dict[str, Any]:
    """The card as JSON values, with NaN, which JSON lacks, as null."""
    values: dict[str, Any] = json.loads(model.card.model_dump_json())
    return {**values, "folder": str(model.folder), "digest": model.card.digest}
