"""``tilemapper compare SRC DST``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tilemapper.cli.options import debug_option, json_option

if TYPE_CHECKING:
    from tilemapper.report.comparison import Comparison


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--out", "page", type=click.Path(), metavar="PAGE.html", help="Write the page here.")
@click.option("--truth", metavar="MAP", help="A true map of the same ground, to measure against.")
@click.option(
    "--palette",
    type=click.Path(),
    metavar="FILE",
    help="Job file of the classes that --truth judges by, as for evaluate; the model's by default.",
)
@click.option(
    "--quicklook", type=click.Path(), metavar="OUT.png", help="Also write both side by side."
)
@click.option("--model", help="Model that painted DST, if not found by the name in its tags.")
@click.option(
    "--block",
    type=click.IntRange(min=1),
    help="Side of the blocks that DST was rendered in, if not the usual one.",
)
@click.option(
    "--shift-blocks",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Sample blocks to render again on a moved lattice; 0 leaves that figure out.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all samples.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--allow-driver",
    "allow_drivers",
    multiple=True,
    metavar="NAME",
    help="Also open rasters with this GDAL driver, such as VRT.",
)
@click.option("--overwrite", is_flag=True, help="Replace the page and the quicklook.")
@json_option
@debug_option
def compare(source: str, target: str, as_json: bool, **options: Any) -> None:
    """Compare the raster SRC with the map DST that was made of it.

    Measures how far the tile lattice shows (SJI), how far tiles disagree (OD), and how much
    depends on where the lattice lies (GSI). PAGE.html is one file that works offline: swipe, zoom,
    lattice and heat map, model, plan, classes, and figures against --truth. SRC and the truth are
    laid on DST's grid where they have another.

    \b
    tilemapper compare city.tif map.tif --out report.html
    tilemapper compare city.tif map.tif --out report.html --truth truth.tif --quicklook both.png
    """  # noqa: D301 (\b is click's mark for lines to keep)
    from tilemapper.api.compare import compare as compare_rasters

    if sys.stderr.isatty():
        click.echo("looking at both rasters", err=True)
    found = compare_rasters(source, target, **options)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    for line in lines(found):
        click.echo(line)


def lines(found: Comparison) -> list[str]:
    """The figures in a few lines."""
    from tilemapper.report.seam_verdict import standing_out

    seams, shift, truth = found.seams, found.shift, found.truth
    said = [f"{found.target}: {found.width} x {found.height} px, source {found.how}"]
    if seams.index is not None:
        excess = seams.index if seams.excess is None else seams.excess
        said.append(
            f"seams    SJI {seams.index:+.3f}, beyond the network's own pattern {excess:+.3f} "
            f"({seams.lines} of {seams.lines_there} lines)"
        )
        if where := standing_out(seams):
            said.append(f"         shows most at {where}")
    if found.disagreement is not None:
        said.append(f"overlaps OD {found.disagreement:.2f} grey levels")
    if shift is not None:
        said.append(
            f"shift    GSI {shift.mean:.2f} grey levels on average, {shift.p99:.0f} at the 99th "
            f"percentile, {shift.changed:.1%} of the pixels change"
        )
    if truth is not None:
        names = ("road_f1", "water_iou", "park_iou", "mean_iou", "acc5", "acc10")
        known = [name for name in names if name in truth.values]
        figures = ", ".join(f"{name} {truth.values[name]:.3f}" for name in known)
        said.append(f"truth    {figures} ({truth.windows} windows of {truth.side} px)")
    said += [f"note     {notice}" for notice in found.notices]
    said += [f"page     {found.page}"] if found.page else []
    return said + ([f"picture  {found.quicklook}"] if found.quicklook else [])
