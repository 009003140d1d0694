"""``tilemapper serve [RASTER…]``."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilemapper.cli.options import debug_option
from tilemapper.cli.signals import farewell
from tilemapper.errors import Interrupted, OptionError

if TYPE_CHECKING:
    from tilemapper.serve.service import Service


@click.command()
@click.argument("rasters", metavar="[RASTER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--allow",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder in which rasters may be picked on the page; may be repeated.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Name or folder of a model to offer first; those found by name are offered too.",
)
@click.option("--overlap", type=int, help="As for render.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="As for render.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Port to listen at; 0 takes a free one.",
)
@click.option(
    "--public", is_flag=True, help="Take a --host that others can reach; there is no password."
)
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME", help="Host name to answer to as well."
)
@click.option(
    "--live-tiles",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Generator tiles that one XYZ tile may cost; farther out nothing is rendered live.",
)
@click.option(
    "--cache-mb",
    type=click.IntRange(min=3),
    default=512,
    show_default=True,
    help="Memory for tiles that were rendered, and for previews.",
)
@click.option(
    "--upload-mb", type=click.IntRange(min=1), default=512, show_default=True, help="Of one upload."
)
@click.option(
    "--upload-mpx",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Million pixels of one upload.",
)
@click.option(
    "--allow-driver",
    "allow_drivers",
    multiple=True,
    metavar="NAME",
    help="Also open rasters on this machine with this GDAL driver, such as VRT.",
)
@debug_option
def serve(
    rasters: tuple[Path, ...],
    allow: tuple[Path, ...],
    models: tuple[str, ...],
    overlap: int | None,
    device: str,
    precision: str,
    host: str,
    port: int,
    public: bool,
    names: tuple[str, ...],
    live_tiles: int,
    cache_mb: int,
    upload_mb: int,
    upload_mpx: int,
    allow_drivers: tuple[str, ...],
) -> None:
    """Show rasters and their maps on a local web page, rendered as one looks.

    The page takes images that are dropped on it, rasters given here, and those in folders given
    with --allow; nothing else can be read. Tiles for QGIS are at /{z}/{x}/{y}.png, an overview of
    the API at /api. Ctrl-C ends it; uploads and maps that were not downloaded are removed then.

    \b
    tilemapper serve city.tif
    tilemapper serve --allow imagery/ --port 9000
    """  # noqa: D301 (\b is click's mark for lines to keep)
    if not (find_spec("fastapi") and find_spec("uvicorn")):
        raise OptionError(
            "serve: fastapi and uvicorn are not installed; pip install 'tilemapper[serve]'"
        )
    with _ended_by_a_signal():
        from tilemapper.serve.binding import bind  # loads nothing heavy

        bound = bind(host, port, public=public)
        if public:
            click.echo("warning: --public: whoever reaches this address can use the page", err=True)
        from tilemapper.serve.limits import Limits
        from tilemapper.serve.server import serve as serve_rasters
        from tilemapper.serve.service import Setting

        limits = Limits(
            live_tiles=live_tiles,
            cache_bytes=cache_mb * 2**20,
            upload_bytes=upload_mb * 2**20,
            upload_pixels=upload_mpx * 10**6,
        )
        setting = Setting(
            rasters=rasters,
            allow=allow,
            models=models,
            overlap=overlap,
            device=device,
            precision=precision,
            allow_drivers=allow_drivers,
            limits=limits,
        )
        serve_rasters(setting, bound, public=public, names=names, on_ready=_say_ready)


@contextlib.contextmanager
def _ended_by_a_signal() -> Iterator[None]:
    """What a signal ends, be it while it is imported: there is nothing to go on with."""
    try:
        yield
    except Interrupted as ended:
        code = farewell(ended.exit_code - 128, "the server has ended")
        if any(thread.daemon for thread in threading.enumerate()):
            # A model that is being loaded, say, in C++ that aborts a process that ends around it.
            os._exit(code)
        click.get_current_context().exit(code)


def _say_ready(service: Service, url: str) -> None:
    scenes = service.scenes.all()
    for scene in scenes:
        for notice in scene.to_json()["notices"]:
            click.echo(notice, err=True)
    click.echo(f"{url}  ({len(scenes)} raster(s), {len(service.models)} model(s); Ctrl-C ends it)")
