"""Models on their device, the most recently used of them kept; for one thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tilemapper.networks.model import Model
from tilemapper.render.engine import Engine

KEPT = 3


class Engines:
    """Opens engines and runs them.

    Args:
        device: as the option of ``render``.
        precision: likewise.
        opener: how a model gets onto its device.
    """

    def __init__(self, device: str, precision: str, opener: Callable[..., Engine]) -> None:
        self._options = {"device": device, "precision": precision}
        self._opener = opener
        self._open: OrderedDict[str, Engine] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def of(self, model: Model) -> Engine:
        """The model on its device; raises what opening it raises."""
        digest = model.card.digest
        if digest not in self._open:
            self._open[digest] = self._opener(model, **self._options)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(digest)
        return self._open[digest]

    def run(self, engine: Engine, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Tiles, (n, tile, tile, 3), spread over the engine's lanes: (n, channels, tile, tile)."""
        if engine.device.type != "cpu":
            # One shape of batch, always: only on CPUs do a tile's bits not depend on it.
            size = engine.batch_size
            spare = np.repeat(tiles[-1:], -len(tiles) % size, axis=0)
            filled = np.concatenate([tiles, spare])
            parts = [engine.predict(filled[at : at + size]) for at in range(0, len(filled), size)]
            return np.concatenate(parts)[: len(tiles)]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(engine.lanes, "forward", engine.enter_lane)
        shares = np.array_split(tiles, min(engine.lanes, len(tiles)))
        return np.concatenate(list(self._pool.map(engine.predict, shares)))

    def close(self) -> None:
        """Lets go of all."""
        if self._pool is not None:
            self._pool.shutdown()
        self._open.clear()
