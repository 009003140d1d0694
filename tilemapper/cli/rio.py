"""``rio tilemap SRC DST``: `tilemapper render` as a plugin of rasterio's command line.

rio imports this module to list its commands, so it imports nothing heavy.
"""

from __future__ import annotations

import copy
from typing import Any

import click

from tilemapper.cli.main import name_variables, outcome
from tilemapper.cli.render import render
from tilemapper.cli.streams import outlive_readers_of_stderr

name_variables(render, "TILEMAPPER_RENDER")  # rio has no prefix of ours
tilemap = copy.copy(render)
tilemap.name = "tilemap"


def _callback(**values: Any) -> None:
    assert render.callback is not None
    callback = render.callback
    outlive_readers_of_stderr()
    code = outcome(lambda: callback(**values))
    if code:
        click.get_current_context().exit(code)


tilemap.callback = _callback
