"""``tilemapper render SRC DST``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from tilemapper.cli.options import (
    KeyValue,
    Numbers,
    OrWord,
    debug_option,
    json_option,
    talk_options,
)
from tilemapper.cli.render_progress import Progress, say_plan, summary


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path())
@click.option("--model", default="maps", show_default=True, help="Name or folder of the model.")
@click.option(
    "--overlap",
    type=int,
    help="Pixels that neighbouring tiles share: 0, 32, 64, 96 or 128.  "
    "[default: 64, or what a smaller tile allows]",
)
@click.option(
    "--batch-size",
    type=OrWord(int, "auto"),
    default="auto",
    show_default=True,
    help="Tiles a call of the generator.",
)
@click.option(
    "--block",
    type=OrWord(int, "auto"),
    default="auto",
    show_default=True,
    help="Side in pixels of what is rendered and staged at once, a multiple of 512.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or cuda:N,M."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto is bf16 where the device is faster in it.",
)
@click.option(
    "--gsd",
    type=OrWord(float, "auto", "native"),
    default="auto",
    show_default=True,
    help="Metres a pixel to render at; auto is the model's, native the source's own.",
)
@click.option(
    "--bidx",
    type=Numbers(int, "R,G,B"),
    multiple=True,
    help="Bands to use as red, green, blue, counted from 1: 4,3,2, or repeated.",
)
@click.option("--nodata", type=float, help="Value of pixels to leave out, over the source's own.")
@click.option(
    "--scale",
    type=Numbers(float, "MIN,MAX", 2),
    help="Values that become 0 and 255; by default sources that are not 8-bit are stretched.",
)
@click.option(
    "--tone",
    type=click.Choice(["none", "match"]),
    default="none",
    show_default=True,
    help="match moves the raster's colours to those of the model's training imagery.",
)
@click.option(
    "--bounds",
    type=Numbers(float, "L,B,R,T", 4),
    help="Render only this part: left, bottom, right, top in units of SRC's CRS.",
)
@click.option(
    "--mask",
    type=click.Path(),
    metavar="AOI.geojson",
    help="Render only inside these polygons, in longitude and latitude.",
)
@click.option("--driver", default="COG", show_default=True, help="COG or GTiff.")
@click.option(
    "--co",
    "creation_options",
    type=KeyValue(),
    multiple=True,
    help="Creation option of the driver, such as COMPRESS=ZSTD.",
)
@click.option(
    "--classes",
    type=click.Path(),
    metavar="PATH.tif",
    help="Also write the classes of a palette model, one paletted band.",
)
@click.option(
    "--workers",
    type=OrWord(int, "auto"),
    default="auto",
    show_default=True,
    help="Processes on this machine; auto is one for each GPU if there are several.",
)
@click.option(
    "--scheduler",
    metavar="ADDR|FILE",
    help="A running dask cluster: tcp://..., tls://..., a scheduler file, or the word dask for "
    "the address in dask's configuration.",
)
@click.option(
    "--dashboard", is_flag=True, help="Show dask's dashboard of --workers, loopback only."
)
@click.option("--insecure", is_flag=True, help="Take a --scheduler elsewhere without TLS.")
@click.option(
    "--uncertainty",
    type=click.Path(),
    metavar="PATH.tif",
    help="Also write how sure the map is: entropy of the classes (0 to 255) for palette models, "
    "disagreement of overlapping tiles in grey levels for others.",
)
@click.option("--tta", is_flag=True, help="Mean over each tile's 8 symmetries; 8 x slower.")
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the generator first (needs g++; measured on a CPU it does not pay).",
)
@click.option("--overwrite", is_flag=True, help="Replace DST, at the end and in one step.")
@click.option("--restart", is_flag=True, help="Throw away an unfinished render of DST.")
@click.option(
    "--allow-driver",
    "allow_drivers",
    multiple=True,
    metavar="NAME",
    help="Also open sources with this GDAL driver, such as VRT.",
)
@click.option(
    "--report", type=click.Path(), metavar="PATH.html", help="Also write a page of SRC beside DST."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost; write nothing.")
@json_option
@talk_options
@debug_option
def render(
    source: str,
    target: str,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    dry_run: bool,
    report: str | None,
    **given: Any,
) -> None:
    """Render the satellite raster SRC as the map raster DST.

    SRC may be of any size; memory does not grow with it. DST appears only when it is complete and
    was read back. Killed or interrupted, the same command goes on where it stopped.

    \b
    tilemapper render city.tif map.tif --report report.html
    tilemapper render city.tif map.tif --gsd native --bidx 4,3,2 --co COMPRESS=ZSTD
    tilemapper render s3://bucket/city.tif map.tif --bounds 583000,4506000,585000,4508000
    """  # noqa: D301 (\b is click's mark for lines to keep)
    options = library_options(given)
    if report is not None:
        from tilemapper.cli.report import check_report, write_report

        check_report(report, source, target, options)
    if dry_run:
        _print_plan(source, target, options, as_json)
        return
    from tilemapper.render.render import render as render_raster

    with Progress(silent=quiet or not sys.stderr.isatty()) as progress:
        result = render_raster(
            source,
            target,
            on_plan=lambda plan, tiles: say_plan(plan, tiles, progress, quiet, verbose),
            tick=progress.tick,
            **options,
        )
    if report is not None:
        write_report(report, source, result, options)
    click.echo(json.dumps(result.to_json()) if as_json else summary(result))


def library_options(given: dict[str, Any]) -> dict[str, Any]:
    """The command's values as `tilemapper.render` takes them."""
    options = dict(given)
    for name in ("batch_size", "block"):
        options[name] = None if options[name] == "auto" else options[name]
    options["bidx"] = tuple(int(band) for part in options["bidx"] for band in part) or None
    options["creation_options"] = dict(options["creation_options"])
    return options


def _print_plan(source: str, target: str, options: dict[str, Any], as_json: bool) -> None:
    from tilemapper.render.estimate import estimate

    cost = estimate(source, target, **options)
    if as_json:
        click.echo(json.dumps(cost.to_json()))
        return
    for line in cost.lines():
        click.echo(line)
