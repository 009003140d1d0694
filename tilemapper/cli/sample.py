"""``tilemapper sample``: writes a synthetic georeferenced city, and its true map."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tilemapper.cli.options import debug_option, json_option


def _size(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    """``2048`` or ``3000x2000`` (width x height), as (height, width)."""
    parts = value.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is neither a number of pixels nor WIDTHxHEIGHT.")
    return int(parts[-1]), int(parts[0])


@click.command()
@click.argument("city", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--truth", type=click.Path(dir_okay=False, path_type=Path), help="Write the true map here too."
)
@click.option(
    "--size",
    callback=_size,
    default="2048",
    show_default=True,
    metavar="PX|WxH",
    help="Pixels a side.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which city.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@json_option
@debug_option
def sample(
    city: Path,
    truth: Path | None,
    size: tuple[int, int],
    seed: int,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write CITY, a synthetic georeferenced city seen from above (GeoTIFF, 0.9 m a pixel).

    The same seed and size always give the same city.
    """
    from tqdm import tqdm

    from tilemapper.report.city import write_city

    height, width = size

    def advance(pixels: int) -> None:
        bar.update(pixels)

    hidden = quiet or as_json or not sys.stderr.isatty()
    with tqdm(
        total=height * width, unit="px", unit_scale=True, disable=hidden, file=sys.stderr
    ) as bar:
        done = write_city(
            city, truth=truth, height=height, width=width, seed=seed, overwrite=overwrite,
            progress=advance,
        )  # fmt: skip
    if as_json:
        summary = {
            "city": str(city), "truth": None if truth is None else str(truth), "height": height,
            "width": width, "seed": seed, "seconds": round(done.seconds, 3),
        }  # fmt: skip
        click.echo(json.dumps(summary))
        return
    also = "" if truth is None else f", map {truth}"
    click.echo(f"{city}: {width} x {height} px, seed {seed}{also}, {done.seconds:.1f} s")
