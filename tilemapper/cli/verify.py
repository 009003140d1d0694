"""``tilemapper verify DST``."""

from __future__ import annotations

import json

import click

from tilemapper.cli.options import debug_option, json_option


@click.command()
@click.argument("target", metavar="DST")
@click.option("--model", help="Model it was rendered with, if not found by the name in its tags.")
@click.option(
    "--source",
    help="Source it was rendered from, if it lies elsewhere now, is remote, or of a kind such as "
    "VRT.",
)
@click.option(
    "--blocks",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="File blocks of 512 px to render again and compare.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of blocks.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@json_option
@debug_option
def verify(
    target: str,
    model: str | None,
    source: str | None,
    blocks: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Check that the map DST, or a layer beside it, is what its tags say.

    Layout (a valid COG, unless rendered with --driver GTiff), tags, size, georeferencing and a part
    of the overviews are checked, and a few blocks are rendered again from the source and compared
    pixel by pixel (not of JPEG and the like, which change pixels). Ends with 1 if anything is
    wrong.

    tilemapper verify map.tif --blocks 10
    """
    from tilemapper.render.verify import verify as verify_map

    verdict = verify_map(
        target, model=model, source=source, blocks=blocks, seed=seed, device=device
    )
    if as_json:
        click.echo(json.dumps(verdict.to_json()))
    elif verdict.ok:
        click.echo(
            f"{target}: good ({len(verdict.checked)} checks, {verdict.blocks_rendered} block(s) "
            "rendered again)"
        )
    for notice in verdict.notices:
        click.echo(f"note: {target}: {notice}", err=True)
    if not verdict.ok:
        for fault in verdict.faults:
            click.echo(f"error: {target}: {fault}; render it again", err=True)
        click.get_current_context().exit(1)
