"""The one thread that runs the generator, for all tiles that anybody waits for.

Live tiles come first, those of several requests together in one batch; a download's batches fill
the time between. A lattice tile that several wait for is run once, and kept while there is room.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import TilemapperError
from tilemapper.networks.model import Model
from tilemapper.render.engine import Engine, open_engine
from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.engines import Engines

Prediction = NDArray[np.int16]  # (channels, tile, tile), 0..2040
LANE_TILES = 8  # at most in one call: later requests should not wait for a large one


@dataclass
class _Wanted:
    """A lattice tile that is waited for, by requests that may be dropped."""

    model: Model
    pixels: NDArray[np.uint8]
    future: Future[Prediction] = field(default_factory=Future)
    askers: list[threading.Event] = field(default_factory=list)  # set when an asker has gone


@dataclass
class _Batch:
    """A batch of a download."""

    model: Model
    tiles: NDArray[np.uint8]
    future: Future[Prediction] = field(default_factory=Future)


class Generator:
    """Runs lattice tiles; made once for a server, and closed with it.

    Args:
        device, precision: as the options of ``render``.
        cache_bytes: of predictions that are kept.
        opener: how a model gets onto its device; called in the generator's thread.
    """

    def __init__(
        self,
        *,
        device: str = "auto",
        precision: str = "auto",
        cache_bytes: int,
        opener: Callable[..., Engine] = open_engine,
    ) -> None:
        self._engines = Engines(device, precision, opener)
        self._cache: BoundedCache[Prediction] = BoundedCache(cache_bytes, lambda p: p.nbytes)
        self._wanted: OrderedDict[Hashable, _Wanted] = OrderedDict()
        self._batches: deque[_Batch] = deque()
        self._warm: deque[Model] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.tiles_run = 0
        self._thread = threading.Thread(target=self._work, name="generator", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lattice tiles that are waited for."""
        return len(self._wanted)

    @property
    def held_bytes(self) -> int:
        """Of predictions that are kept."""
        return self._cache.held_bytes

    def warm_up(self, model: Model) -> None:
        """Loads a model before anybody asks for it; an error shows at the first request."""
        with self._changed:
            self._warm.append(model)
            self._changed.notify()

    def ask(
        self,
        model: Model,
        tiles: Iterable[tuple[Hashable, NDArray[np.uint8]]],
        gone: threading.Event,
    ) -> list[Future[Prediction]]:
        """Predictions to come of lattice tiles, each (tile, tile, 3) uint8 under a stable key.

        Args:
            model: that shall paint them.
            tiles: keys name raster, model and place in the lattice.
            gone: set when nobody waits for them any more; they are not run then.
        """
        futures = []
        with self._changed:
            if self._closed:
                raise TilemapperError("serve: the server is ending; start it again")
            for key, pixels in tiles:
                held = self._cache.get(key)
                if held is not None:
                    done: Future[Prediction] = Future()
                    done.set_result(held)
                    futures.append(done)
                    continue
                wanted = self._wanted.setdefault(key, _Wanted(model, pixels))
                wanted.askers.append(gone)
                futures.append(wanted.future)
            self._changed.notify()
        return futures

    def run_batch(self, model: Model, tiles: NDArray[np.uint8]) -> Prediction:
        """A download's batch, when no live tile waits: (n, channels, tile, tile) int16."""
        batch = _Batch(model, tiles)
        with self._changed:
            if self._closed:
                raise TilemapperError("serve: the server is ending; start it again")
            self._batches.append(batch)
            self._changed.notify()
        return batch.future.result()

    def close(self) -> None:
        """Ends the thread after the call that runs; what waits fails."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5)

    # -- in the generator's thread -----------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._wanted or self._batches or self._warm):
                    self._changed.wait()
                if self._closed:
                    break
                model = self._warm.popleft() if self._warm else None
            if model is not None:
                self._load(model)
            elif not self._run_live() and self._batches:
                self._run_download(self._batches.popleft())
        ending = TilemapperError("serve: the server is ending; start it again")
        futures = [wanted.future for wanted in self._wanted.values()]
        for future in [*futures, *(batch.future for batch in self._batches)]:
            future.set_exception(ending)
        self._engines.close()

    def _load(self, model: Model) -> None:
        try:
            engine = self._engines.of(model)
            side = model.card.tile
            # The first call lays out weights and memory; nobody should have to wait for that.
            self._engines.run(engine, np.zeros((engine.lanes, side, side, 3), np.uint8))
        except Exception:  # said again, and to somebody, when the model is asked for
            return

    def _run_live(self) -> bool:
        """Runs what is waited for, as much as goes into one round; False if there is nothing."""
        keys: list[Hashable] = []
        with self._changed:
            for key in [k for k, w in self._wanted.items() if all(a.is_set() for a in w.askers)]:
                self._wanted.pop(key).future.cancel()
            if not self._wanted:
                return False
            model = next(iter(self._wanted.values())).model
        try:
            engine = self._engines.of(model)
        except Exception as error:  # whatever it is, those who wait must hear of it
            with self._changed:
                keys = [k for k, w in self._wanted.items() if w.model is model]
            self._fail(keys, error)
            return True
        with self._changed:
            most = LANE_TILES * engine.lanes
            keys = [k for k, w in self._wanted.items() if w.model.card == model.card][:most]
            batch = np.stack([self._wanted[key].pixels for key in keys])
        try:
            predictions = self._engines.run(engine, batch)
        except Exception as error:
            self._fail(keys, error)
            return True
        self.tiles_run += len(keys)
        for key, prediction in zip(keys, predictions, strict=True):
            # A copy: a view would keep its whole batch in memory.
            held = prediction.copy()
            with self._changed:
                self._cache.put(key, held)
                self._wanted.pop(key).future.set_result(held)
        return True

    def _run_download(self, batch: _Batch) -> None:
        try:
            batch.future.set_result(self._engines.run(self._engines.of(batch.model), batch.tiles))
        except Exception as error:
            batch.future.set_exception(error)

    def _fail(self, keys: Sequence[Hashable], error: Exception) -> None:
        with self._changed:
            for key in keys:
                self._wanted.pop(key).future.set_exception(error)
