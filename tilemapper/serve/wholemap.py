"""A whole map by `render`, painted by the generator's thread between live tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from tilemapper.networks.model import Model
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.devices import choose_device, choose_precision, default_batch
from tilemapper.render.engine import Engine
from tilemapper.render.plan import Plan
from tilemapper.serve.generator import Generator
from tilemapper.serve.scenes import check_same


class Cancelled(Exception):
    """The user wants the map no more, or the server ends."""


def render_whole(
    source: SourceSpec,
    target: Path,
    model: Model,
    generator: Generator,
    progress: Callable[[int, int], None],
    **options: Any,
) -> None:
    """Renders a raster as a GeoTIFF.

    Args:
        source: of the raster.
        target: the file to write.
        model: that paints.
        generator: whose thread runs it.
        progress: called with the tiles done since the last call, and those of the whole map.
        **options: device, precision and overlap, as for `render`.

    Raises:
        TilemapperError: as `render` does.
        Cancelled: ``progress`` raised it.
    """
    from tilemapper.render.render import render

    total = [0]

    def begin(plan: Plan, tiles: int) -> None:
        check_same(source, plan.source)
        total[0] = tiles
        progress(0, tiles)

    engine = _Shared(generator, model, options["device"], options["precision"])
    render(
        source.path,
        target,
        model,
        on_plan=begin,
        tick=lambda tiles: progress(tiles, total[0]),
        # It has all of an engine that rendering uses.
        engine=cast(Engine, engine),
        allow_drivers=(source.driver,),
        **options,
    )


class _Shared:
    """The generator's thread as an engine: see `tilemapper.render.block.Predictor`."""

    lanes = 2  # one batch runs, the next one waits
    device = torch.device("cpu")  # where its predictions are, wherever they were made
    tta = compiled = False

    def __init__(self, generator: Generator, model: Model, device: str, precision: str) -> None:
        self._generator, self.model = generator, model
        self.precision = choose_precision(precision, choose_device(device), model)
        self.channels = model.card.channels
        self.is_palette = model.card.head == "palette"
        self.batch_size = default_batch("cpu" if device == "auto" else device)
        self.fits = self.batch_size  # as far as rendering is concerned: the thread makes its own

    def enter_lane(self) -> None:
        """Nothing: the generator's thread has lanes of its own."""

    def predict(self, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        """See `tilemapper.render.engine.Engine.predict`."""
        return self._generator.run_batch(self.model, tiles)
