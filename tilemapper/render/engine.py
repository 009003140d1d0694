"""Streams batches of tiles through a generator on one device.

Statistics are frozen, norms are folded, and every call has the same batch shape, so that a
tile's prediction does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilemapper.errors import (
    NO_ALGORITHM,
    DeviceError,
    ModelError,
    lacks_device_memory,
    no_algorithm,
)
from tilemapper.networks.folding import fold_norms
from tilemapper.networks.model import Model
from tilemapper.networks.renderable import check_renders
from tilemapper.render.devices import choose_device, choose_precision, default_batch, settle
from tilemapper.render.levels import painted
from tilemapper.render.packing import packed_for_cpu

SAMPLE = 16  # tiles that weights are laid out for, at most


class Engine:
    """A generator on its device, ready for batches of one shape.

    Attributes:
        channels: of a prediction: 3 for RGB, the number of classes for palette models.
        lanes: calls that run at once, each in a thread of its own.
        batch_size: tiles a call, as the plan fixes it.
        fits: tiles that go into one call; less than `batch_size` once memory ran out.
        precision, tta, compiled: as it was opened.

    Raises:
        ModelError: the model cannot paint a raster, or its weights are damaged.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 8,
        tta: bool = False,
        compiled: bool = False,
    ) -> None:
        check_renders(model.card)
        self.model = model
        self.device = torch.device(device)
        settle(device)
        self.batch_size = batch_size
        self.is_palette = model.card.head == "palette"
        self.channels = len(model.card.palette) if self.is_palette else 3
        self.precision, self.tta, self.compiled = precision, tta, compiled
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        network = fold_norms(model.generator()).to(self.device, self._dtype)
        self._network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # On a CPU one batch a core, each on one thread: cores never wait for each other at the end
        # of a layer, reading and blending take what is left over, and no sum of float32 is split
        # among threads, by whose number its last bits would be others.
        self.lanes = torch.get_num_threads() if self.device.type == "cpu" else 1
        self.fits = batch_size
        if compiled:
            with self._as_in_a_lane():  # for another number of threads torch would compile again
                self._network = compiled_network(self._network, model.card.tile, batch_size)
        elif self.device.type == "cpu":
            self._network = packed_for_cpu(self._network, self._some_batch())

    def _some_batch(self) -> torch.Tensor:
        """Noise in [-1, 1], (n, 3, tile, tile), laid out as every later batch.

        A few tiles of a large one: whether all of it fits into memory is seen when it is called.
        """
        tile = self.model.card.tile
        shape = (min(self.batch_size, SAMPLE), 3, tile, tile)
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return noise.to(self._dtype, memory_format=torch.channels_last)

    def enter_lane(self) -> None:
        """Prepares a thread that will call `predict` beside others."""
        if self.lanes > 1:
            torch.set_num_threads(1)

    @contextlib.contextmanager
    def _as_in_a_lane(self) -> Iterator[None]:
        before = torch.get_num_threads()
        self.enter_lane()
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def predict(self, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Predictions of a batch, in eighths of a grey level or of a class's probability.

        Args:
            tiles: (batch_size, tile, tile, 3) uint8.

        Returns:
            (batch_size, channels, tile, tile) int16, 0..2040.

        Raises:
            DeviceError: one tile alone does not fit into the device's memory.
            ModelError: the generator gave values that are not finite.
        """
        size = min(self.fits, len(tiles))
        while True:
            try:
                parts = [self._run(tiles[at : at + size]) for at in range(0, len(tiles), size)]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                size = self.fits = smaller(self.device, self.model, size, error)
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @torch.inference_mode()
    def _run(self, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        levels, finite = self.paint(torch.from_numpy(tiles).to(self.device, non_blocking=True))
        if not finite:
            raise unsound(self.model)
        array: NDArray[np.int16] = levels.cpu().numpy()
        return array

    def paint(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predictions of a batch that is on the device; see `tilemapper.render.levels.painted`."""
        return painted(
            self._network, pixels, dtype=self._dtype, palette=self.is_palette, tta=self.tta
        )


def unsound(model: Model) -> ModelError:
    """What is said of a generator that gives values that are not finite."""
    return ModelError(
        f"{model.card.name}: the generator gives values that are not finite; "
        "use --precision fp32, or another model"
    )


def compiled_network(network: nn.Module, tile: int, batch_size: int) -> nn.Module:
    """The network through torch.compile, compared with itself on one batch before it is used.

    Raises:
        DeviceError: it cannot be compiled here, or gives other values than uncompiled.
    """
    parameter = next(network.parameters(), None)
    if parameter is None:
        return network
    compiled = torch.compile(network, dynamic=False)
    shape = (batch_size, 3, tile, tile)
    try:
        # All of it in here: for a batch made outside it would be compiled once more at the first
        # tiles, where nobody gives a sign of life for so long.
        with torch.inference_mode():
            batch = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
            batch = batch.to(parameter.device, parameter.dtype, memory_format=torch.channels_last)
            apart = (compiled(batch).float() - network(batch).float()).abs().mean().item()
            scale = network(batch).float().abs().mean().item()
    except Exception as error:  # torch raises many kinds here, most of them about the compiler
        reason = (str(error).splitlines() or ["no message"])[0]
        raise DeviceError(
            f"--compile: torch.compile failed ({reason}); install g++, or go without it"
        ) from error
    if apart > 0.02 * max(scale, 0.1):
        raise DeviceError(
            f"--compile: the compiled generator differs by {apart:.3g} on average; go without it"
        )
    return compiled  # type: ignore[return-value]


def smaller(device: torch.device, model: Model, size: int, error: BaseException) -> int:
    """Half of a call of ``size`` tiles that did not fit into memory, which a warning says.

    Raises:
        DeviceError: it was of one tile.
    """
    if size == 1 and NO_ALGORITHM in str(error):
        raise DeviceError(no_algorithm(str(device))) from error
    if size == 1:
        raise DeviceError(
            f"{device}: not enough memory for one tile of model {model.card.name}; free some, or "
            "use a smaller model or --device cpu"
        ) from error
    if device.type == "cuda":
        torch.cuda.empty_cache()
    warnings.warn(
        f"{device}: out of memory at {size} tiles, going on with {size // 2}",
        RuntimeWarning,
        stacklevel=4,
    )
    return size // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory."""
    on_host = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return on_host or lacks_device_memory(error)


def open_engine(
    model: Model,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
) -> Engine:
    """An engine with everything that is ``auto`` decided."""
    device = choose_device(device)
    return Engine(
        model,
        device=device,
        precision=choose_precision(precision, device, model),
        batch_size=batch_size or default_batch(device),
    )
