"""A generator that takes its tiles from a device's memory and leaves its predictions there.

On CUDA the whole of it, from bytes to quantised predictions, is one graph of the fixed batch
shape: launching it costs the host microseconds, whatever the network.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tilemapper.render.cuda.streams import Streams
from tilemapper.render.engine import Engine, is_out_of_memory, smaller

LOG = logging.getLogger(__name__)

# Of a batch on the device: (n, channels, tile, tile) int16, 0..2040, and whether all values were
# finite, () bool. Each block keeps the latter for itself: others are painted meanwhile.
Painted = tuple[torch.Tensor, torch.Tensor]

WARM_UP = 3  # calls before a graph is recorded, so that libraries have chosen and allocated


class Painter:
    """One for a device; blocks that are rendered at once share it.

    Attributes:
        streams: on which the predictions are made.
        batch_size: tiles a call, as the plan fixes it.
        fits: tiles that go into one call; less than `batch_size` once memory ran out.
        channels: of a prediction.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.batch_size, self.channels = engine, engine.batch_size, engine.channels
        self.device = engine.device
        self.streams = Streams(engine.device)
        self._lock = threading.Lock()
        self.fits = engine.batch_size
        self._graph: _Graph | None = None
        self._records = engine.device.type == "cuda"

    def prepare(self) -> None:
        """Records the graph, on noise.

        To be called while no other thread uses the device: whatever mode a recording is in, some
        calls of others end it.

        Raises:
            DeviceError: as `paint`.
        """
        tile = self.engine.model.card.tile
        shape = (self.batch_size, tile, tile, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        with self.streams.computing():
            self.paint(torch.from_numpy(noise).to(self.device))
        self.streams.synchronize()

    @torch.inference_mode()
    def paint(self, tiles: torch.Tensor) -> Painted:
        """Predictions of a batch, launched on the computing stream.

        Args:
            tiles: (batch_size, tile, tile, 3) uint8 on the device.

        Returns:
            Predictions and whether they can be trusted, both on the device and the caller's own.

        Raises:
            DeviceError: one tile alone does not fit into the device's memory.
        """
        with self._lock, self.streams.computing():
            while True:
                try:
                    return self._in_parts(tiles)
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._shrink(error)

    def _in_parts(self, tiles: torch.Tensor) -> Painted:
        size = self.fits
        parts, sound = [], []
        for at in range(0, len(tiles), size):
            part = tiles[at : at + size]
            spare = size - len(part)
            if spare:  # a call always has the same shape
                part = torch.cat([part, part[-1:].expand(spare, -1, -1, -1)])
            levels, finite = self._call(part)
            parts.append(levels[: size - spare])
            sound.append(finite)
        if len(parts) == 1:
            return parts[0], sound[0]
        return torch.cat(parts), torch.stack(sound).all()

    def _call(self, tiles: torch.Tensor) -> Painted:
        if self._records and self._graph is None:
            self._graph = self._record(tiles)
            self._records = self._graph is not None
        if self._graph is not None:
            return self._graph(tiles)
        return self._forward(tiles)

    def _forward(self, tiles: torch.Tensor) -> Painted:
        return self.engine.paint(tiles)

    def _record(self, tiles: torch.Tensor) -> _Graph | None:
        """A graph of `_forward`; None where it cannot be recorded, or comes to other values."""
        for _ in range(WARM_UP):
            expected, _ = self._forward(tiles)
        try:
            graph = _Graph(self._forward, tiles, self.streams)
            same = torch.equal(graph(tiles)[0], expected)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            LOG.info("%s: no CUDA graph (%s)", self.device, (str(error).splitlines() or [""])[0])
            return None
        if not same:
            LOG.warning("%s: the CUDA graph differs from plain calls, left out", self.device)
            return None
        return graph

    def _shrink(self, error: BaseException) -> None:
        # Its memory goes first; the next call records one of the new shape.
        self._graph, self._records = None, self.device.type == "cuda"
        self.fits = smaller(self.device, self.engine.model, self.fits, error)


# The painter of each engine, for as long as the engine lives.
_PAINTERS: weakref.WeakKeyDictionary[Engine, Painter] = weakref.WeakKeyDictionary()
_PAINTERS_LOCK = threading.Lock()


def painter_of(engine: Engine) -> Painter | None:
    """The painter of an engine on a GPU; None on a CPU, where one tile at a time is faster."""
    if engine.device.type != "cuda":
        return None
    with _PAINTERS_LOCK:
        if engine not in _PAINTERS:
            # By a proxy: a painter that held its engine would keep it, and its memory, for ever.
            painter = Painter(weakref.proxy(engine))
            painter.prepare()
            _PAINTERS[engine] = painter
        return _PAINTERS[engine]


class _Graph:
    """A recorded call: the tiles are copied to where it reads, its result from where it writes."""

    def __init__(
        self, call: Callable[[torch.Tensor], Painted], tiles: torch.Tensor, streams: Streams
    ) -> None:
        self._tiles = tiles.clone()
        self._graph = torch.cuda.CUDAGraph()
        streams.synchronize()
        # On a stream of its own: what other blocks launch meanwhile must not be recorded. They may
        # allocate, too, which is no part of this thread's recording. After one that failed torch
        # leaves its stream the current one: the context around it brings back ours.
        aside = streams.new()
        with (
            streams.computing(),
            _memory_of_a_recording(tiles.device) as pool,
            torch.cuda.graph(
                self._graph, pool=pool, stream=aside, capture_error_mode="thread_local"
            ),
        ):
            self._levels, self._finite = call(self._tiles)

    def __call__(self, tiles: torch.Tensor) -> Painted:
        self._tiles.copy_(tiles)
        self._graph.replay()
        return self._levels.clone(), self._finite.clone()


@contextlib.contextmanager
def _memory_of_a_recording(device: torch.device) -> Iterator[Any]:
    """Memory of its own for a recording; given back if that fails.

    Of one that failed torch (2.11 to 2.13) does not hear that it has ended. For as long as any goes
    on, it takes back no memory that two streams have used: every strip that goes up would be lost.
    """
    pool = torch.cuda.graph_pool_handle()
    try:
        yield pool
    except BaseException:
        with contextlib.suppress(RuntimeError):  # this time it has heard
            torch._C._cuda_endAllocateToPool(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)
        raise
