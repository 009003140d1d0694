"""``tilemapper pairs``: cut, check and pack training pairs, and count their palette."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tilemapper.cli.options import debug_option, json_option


def _gsd(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str | float:
    """``native``, or metres a pixel."""
    if value == "native":
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither native nor metres a pixel.") from None


@click.group("pairs")
def pairs() -> None:
    """Cut, check and pack training pairs, and count their colours.

    Pairs are a folder of side-by-side images, folders A and B with images of the same names
    (also inside train and val), or an .npz file with arrays A and B.
    """


@pairs.command("cut")
@click.argument("imagery")
@click.argument("map_path", metavar="MAP")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--gsd", default="native", show_default=True, callback=_gsd, help="Metres a pixel.")
@click.option("--tile", default=512, show_default=True, help="Side of a pair in pixels.")
@click.option("--stride", type=int, help="Pixels from tile to tile; the tile by default.")
@click.option("--min-valid", default=1.0, show_default=True, help="Least share of valid pixels.")
@click.option(
    "--resampling",
    type=click.Choice(["nearest", "bilinear", "average"]),
    default="nearest",
    show_default=True,
    help="Of the map; nearest keeps its colours.",
)
@json_option
@debug_option
def cut(imagery: str, map_path: str, out: Path, as_json: bool, **options: Any) -> None:
    """Cut paired tiles from IMAGERY and MAP, two rasters of the same ground, into OUT.

    CRS, resolution and footprint may differ: the map is warped onto the imagery's grid.
    """
    from tqdm import tqdm

    from tilemapper.training.cutting import CutOptions, cut_pairs

    cut_options = CutOptions(**options)
    with tqdm(unit="place", disable=not sys.stderr.isatty()) as bar:

        def on_place(_done: int, total: int) -> None:
            bar.total = total
            bar.update()

        result = cut_pairs(imagery, map_path, out, options=cut_options, on_place=on_place)
    for notice in result.notices:
        click.echo(notice, err=True)
    if as_json:
        click.echo(json.dumps({"out": str(out), "pairs": result.names, "skipped": result.skipped}))
    else:
        click.echo(f"{len(result.names)} pairs in {out}, {result.skipped} places skipped")


@pairs.command("check")
@click.argument("data", type=click.Path(path_type=Path))
@json_option
@debug_option
def check(data: Path, as_json: bool) -> None:
    """Decode every pair of DATA and list all that is wrong; exit 1 if anything is.

    Finds damaged, mis-sized, unpaired, duplicate, near-duplicate, constant, mirrored and
    misaligned pairs.
    """
    import torch
    from tqdm import tqdm

    from tilemapper.errors import PairError
    from tilemapper.training.checks import check_pairs

    torch.set_num_threads(1)  # pairs are checked side by side; threads inside each would quarrel
    with tqdm(unit="pair", disable=not sys.stderr.isatty()) as bar:
        count, faults = check_pairs(data, on_pair=bar.update)
    if as_json:
        found = [{"kind": f.kind, "names": list(f.names), "what": f.what} for f in faults]
        click.echo(json.dumps({"pairs": count, "faults": found}))
    else:
        for fault in faults:
            click.echo(f"{fault.kind}\t{fault.names[0]}\t{fault.what}")
        click.echo(f"{count} pairs checked, {len(faults)} faults", err=True)
    if faults:
        raise PairError(f"{data}: {len(faults)} faults found, none is wanted; see the list above")


@pairs.command("pack")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@json_option
@debug_option
def pack(data: Path, out: Path, as_json: bool) -> None:
    """Write all pairs of DATA to OUT.npz: arrays A and B, (n, height, width, 3) uint8."""
    from tqdm import tqdm

    from tilemapper.training.pairs import open_pairs, pack_pairs
    from tilemapper.training.split import find_overlaps

    source = open_pairs(data)
    with tqdm(total=2 * len(source), unit="image", disable=not sys.stderr.isatty()) as bar:
        pack_pairs(source, out, on_pair=lambda _count: bar.update())
    if (overlaps := find_overlaps(data, None)) and overlaps != find_overlaps(out, None):
        click.echo(
            f"{out} does not say which pairs overlap; train with --set data.overlaps={overlaps}",
            err=True,
        )
    if as_json:
        click.echo(json.dumps({"out": str(out), "pairs": len(source)}))
    else:
        click.echo(f"{len(source)} pairs in {out}")


@pairs.command("palette")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--classes",
    type=click.IntRange(2, 128),
    default=16,
    show_default=True,
    help="At most so many colours.",
)
@click.option(
    "--min-share",
    "least_share",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="Of the pixels, that a colour needs.",
)
@click.option(
    "--pairs",
    "most_pairs",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Look at so many, evenly spread.",
)
@click.option("--like", metavar="MODEL", help="Keep its classes; count their colours anew.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the job file here instead.")
@json_option
@debug_option
def palette(
    data: Path,
    classes: int,
    least_share: float,
    most_pairs: int,
    like: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Count the colours that the maps of DATA are drawn in; print them as a job file.

    A palette model of another map's style needs the colours of that style. Name the classes in
    the file, then: tilemapper train DATA --out RUN --preset fast --config palette.toml

    tilemapper pairs palette DATA --out palette.toml
    """
    from tqdm import tqdm

    from tilemapper.errors import ModelError, TargetError
    from tilemapper.networks.model import open_model
    from tilemapper.raster.atomic import check_regular, write_text_atomic
    from tilemapper.training.pairs import open_pairs
    from tilemapper.training.palette import count_palette

    def check_out() -> None:
        if out is None:
            return
        check_regular(out)
        if out.is_file() or out.is_symlink():
            raise TargetError(
                f"{out}: exists already, and its classes may have names by now; choose another "
                "path or move it away"
            )

    check_out()
    source = open_pairs(data)
    kept = open_model(like).card.palette or () if like else ()
    if like and not kept:
        raise ModelError(f"{like}: has no palette, --like needs one; leave it out to find classes")
    with tqdm(unit="pair", disable=not sys.stderr.isatty()) as bar:
        found = count_palette(
            source,
            classes=classes,
            least_share=least_share,
            pairs=most_pairs,
            like=kept,
            on_pair=bar.update,
        )
    text = found.job_text(str(data))
    if out is not None:
        check_out()  # another run may have ended since
        write_text_atomic(out, text)
    if as_json:
        entries = [
            {"name": entry.name, "colour": list(entry.colour), "share": round(share, 6)}
            for entry, share in zip(found.classes, found.shares, strict=True)
        ]
        click.echo(json.dumps({"pairs": found.pairs, "far": found.far, "palette": entries}))
    elif out is None:
        click.echo(text, nl=False)
    else:
        click.echo(
            f"{len(found.classes)} colours in {out}; {found.far:.1%} of the pixels near none"
        )
