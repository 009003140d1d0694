"""``render --report``: the page of `compare`, written after a render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemapper.errors import OptionError
from tilemapper.paths import real_path

if TYPE_CHECKING:
    from tilemapper.render.outcome import RenderResult


def check_report(report: str, source: str, target: str, options: dict[str, Any]) -> None:
    """Refuses a page that may not be written, before the raster is rendered.

    Raises:
        OptionError, TargetError: it is the map itself, a layer or the mask's file, or exists.
    """
    from tilemapper.render.targets import check_target

    check_target(source, Path(report), overwrite=options["overwrite"])
    others = {name: options[name] for name in ("classes", "uncertainty", "mask")}
    for name, path in ({"map": target} | others).items():
        if path is not None and real_path(report) == real_path(path):
            raise OptionError(f"{report}: the {name} and the page would be one file; name two")


def write_report(report: str, source: str, result: RenderResult, options: dict[str, Any]) -> None:
    """Writes the page, with the figures of the render; ``options`` are those of `render`."""
    from tilemapper.api.compare import compare

    rate = result.tiles / result.seconds if result.seconds else 0.0
    resumed = f", {result.blocks_resumed} of {result.blocks} blocks stood already"
    compare(
        source,
        result.target,
        report,
        model=options["model"],
        overwrite=options["overwrite"],
        block=result.block,
        # The device of a cluster's workers need not be one of this machine.
        device="auto" if options["scheduler"] else options["device"],
        allow_drivers=options["allow_drivers"],
        timings={
            "Rendered": f"{result.tiles} tiles in {result.seconds:.1f} s ({rate:.1f} tiles/s)"
            f"{resumed if result.blocks_resumed else ''}",
            "Output": f"{result.output_bytes / 1e6:.1f} MB",
        },
    )
