"""Streams batches of tiles through a generator on one device.

Statistics are frozen, norms are folded, and every call has the same batch shape, so that a
tile's prediction does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilemapper.errors import DeviceError, ModelError, OptionError
from tilemapper.networks.folding import fold_norms
from tilemapper.networks.model import Model
from tilemapper.raster.blend import TOP
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.render.block import blend_rows, class_rows, grey_rows, predict_rows, read_tile_rows

CPU_BATCH = 8  # batch 1 is 2.4 times slower a tile; beyond 8 nothing is gained
CUDA_BATCH = 64
PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(wanted: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` to a device that is there.

    Raises:
        OptionError: no such kind of device.
        DeviceError: CUDA was asked for and is not there.
    """
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdigit())):
        raise OptionError(f"device {wanted!r}: unknown, auto, cpu, cuda or cuda:N is needed")
    if kind == "cpu":
        return "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise DeviceError(
            f"device {wanted}: {count} CUDA device(s) found; use --device cpu, or see "
            "`tilemapper info`"
        )
    return f"cuda:{number or 0}"


def choose_precision(wanted: str, device: str, model: Model) -> str:
    """``auto`` is bf16 where the device computes in it natively, else fp32."""
    if wanted not in PRECISIONS:
        raise OptionError(
            f"precision {wanted!r}: unknown, one of {', '.join(PRECISIONS)} is needed"
        )
    if wanted != "auto":
        return wanted
    # Stand-ins without weights are exact in fp32 and gain nothing from bf16.
    if model.card.architecture in ("identity", "constant"):
        return "fp32"
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


class Engine:
    """A generator on its device, ready for batches of one shape.

    Attributes:
        channels: of a prediction: 3 for RGB, the number of classes for palette models.
        batch_size: tiles a call; a call is split when the device runs out of memory.
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
        self.model = model
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.is_palette = model.card.head == "palette"
        self.channels = len(model.card.palette) if self.is_palette else 3
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        network = fold_norms(model.generator()).to(self.device, self._dtype)
        self._network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._fits = batch_size  # tiles that go into one call; less once memory ran out
        self._tta = tta
        if compiled:
            self._network = compiled_network(self._network, model.card.tile, batch_size)

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
        size = min(self._fits, len(tiles))
        while True:
            try:
                parts = [self._run(tiles[at : at + size]) for at in range(0, len(tiles), size)]
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                size = self._fits = self._smaller(size, error)
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _smaller(self, size: int, error: BaseException) -> int:
        if size == 1:
            raise DeviceError(
                f"{self.device}: not enough memory for one tile of model {self.model.card.name}; "
                "free some, or use a smaller model or --device cpu"
            ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"{self.device}: out of memory at {size} tiles, going on with {size // 2}",
            RuntimeWarning,
            stacklevel=3,
        )
        return size // 2

    @torch.inference_mode()
    def _run(self, tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
        pixels = torch.from_numpy(tiles).to(self.device, non_blocking=True)
        # (n, tile, tile, 3) uint8 in memory is (n, 3, tile, tile) channels_last: nothing is moved.
        batch = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self._dtype)
        prediction = self._mean_of_symmetries(batch) if self._tta else self._paint(batch)
        array: NDArray[np.int16] = prediction.cpu().numpy()
        return array

    def _paint(self, batch: torch.Tensor) -> torch.Tensor:
        return self._quantise(self._network(batch))

    def _mean_of_symmetries(self, batch: torch.Tensor) -> torch.Tensor:
        """Mean over the 8 symmetries of the square, rounded once: imagery from above has no up."""
        total = torch.zeros((), dtype=torch.int16, device=self.device)
        for turns in range(4):
            turned = batch.rot90(turns, (2, 3))
            for flipped in (turned, turned.flip(3)):
                ready = flipped.contiguous(memory_format=torch.channels_last)
                painted = self._paint(ready)
                back = painted if flipped is turned else painted.flip(3)
                total = total + back.rot90(-turns, (2, 3))
        return (total + 4) >> 3

    def _quantise(self, output: torch.Tensor) -> torch.Tensor:
        """RGB in [-1, 1] or class logits to (n, channels, tile, tile) int16, 0..2040."""
        output = output.float()
        share = output.softmax(dim=1) if self.is_palette else (output + 1) / 2
        if not torch.isfinite(share.sum()):
            raise ModelError(
                f"{self.model.card.name}: the generator gives values that are not finite; "
                "use --precision fp32, or another model"
            )
        return (share * TOP).round_().clamp_(0, TOP).to(torch.int16)


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
    batch = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = batch.to(parameter.device, parameter.dtype, memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
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


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "can't allocate memory" in str(error) or "out of memory" in str(error)
    )


def default_batch(device: str) -> int:
    """Tiles a batch when the user names none."""
    return CPU_BATCH if device == "cpu" else CUDA_BATCH


@dataclass
class RenderedArray:
    """A map in memory: ``rgb`` (h, w, 3) uint8; ``classes`` (h, w) uint8 for palette models."""

    rgb: NDArray[np.uint8]
    classes: NDArray[np.uint8] | None
    expected: NDArray[np.uint8] | None = None


class _ArrayView:
    """An array in memory as a source view: every pixel valid, none unwanted."""

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        self._rgb = rgb

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return self._rgb[row : row + height, col : col + width], np.ones((height, width), bool)

    def wanted(self, **_window: int) -> None:
        return None


def render_array(
    rgb: NDArray[np.uint8], model: Model | Engine, *, overlap: int = 64, device: str = "auto"
) -> RenderedArray:
    """Renders an image in memory on the same lattice and blend as a raster on disk.

    Args:
        rgb: (height, width, 3) uint8 at the model's ground sampling distance.
        model: an opened model, or an `Engine` that is to be used again and again.
        overlap: pixels that neighbouring tiles share, 0 to 128, a multiple of 32.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; not used with an `Engine`.
    """
    engine = model if isinstance(model, Engine) else open_engine(model, device=device)
    lattice = Lattice(rgb.shape[0], rgb.shape[1], overlap)
    block = Block(0, 0, *rgb.shape[:2])
    rows = read_tile_rows(_ArrayView(rgb), lattice, block, mean=(0, 0, 0))
    finished = list(blend_rows(predict_rows(rows, engine), lattice, block))
    if not engine.is_palette:
        image = np.concatenate([grey_rows(part) for part in finished], axis=1)
        return RenderedArray(np.ascontiguousarray(image.transpose(1, 2, 0)), None)
    palette = palette_of(engine.model)
    classes = np.concatenate([class_rows(part) for part in finished])
    shares = np.concatenate([part.totals for part in finished], axis=1) / (TOP * 2.0**20)
    expected = np.einsum("khw,kc->hwc", shares, palette.astype(float))
    expected /= np.maximum(shares.sum(axis=0), 1e-9)[..., None]
    return RenderedArray(palette[classes], classes, np.rint(expected).astype(np.uint8))


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


def palette_of(model: Model) -> NDArray[np.uint8]:
    """Colours of a palette model's classes, (classes, 3) uint8."""
    return np.array([entry.colour for entry in model.card.palette], np.uint8).reshape(-1, 3)
