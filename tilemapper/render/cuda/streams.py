"""Copies between the host and a device, beside what the device computes.

Pixels go up and come down through pinned memory on streams of their own, so that neither the host
nor the generator waits for the bus. On a CPU there is nothing to copy, and the same calls do
nothing: so the device's path runs, and is tested, without a GPU.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Download:
    """An array on its way to the host."""

    def __init__(self, tensor: torch.Tensor, arrived: Any = None) -> None:
        self._tensor, self._arrived = tensor, arrived

    def numpy(self) -> NDArray[Any]:
        """The array, once it is there; its memory is nobody else's."""
        if self._arrived is not None:
            self._arrived.synchronize()
        array: NDArray[Any] = self._tensor.numpy()
        return array


class Streams:
    """One stream that computes, one that copies up, one that copies down."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._compute, self._up, self._down = self.new(), self.new(), self.new()
            # What was launched before, such as the layout of the weights, is done first.
            self._compute.wait_stream(torch.cuda.current_stream(device))

    def new(self) -> Any:
        """One more stream of the device."""
        kind: Any = torch.cuda.Stream
        return kind(self.device)

    def computing(self) -> AbstractContextManager[Any]:
        """What is launched inside runs on the computing stream, in the order of the calls."""
        return torch.cuda.stream(self._compute) if self._cuda else contextlib.nullcontext()

    def upload(self, array: NDArray[Any]) -> torch.Tensor:
        """The array on the device; what is computed from now on waits for it, the host does not.

        The array belongs to the tensor from now on.
        """
        if not self._cuda:
            return torch.from_numpy(np.require(array, requirements=["C", "W"]))
        # torch keeps pinned memory for the next strip, once the copy has used it.
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        with torch.cuda.stream(self._up):
            pinned = torch.empty(array.shape, dtype=kind, pin_memory=True)
            np.copyto(pinned.numpy(), array)
            there = pinned.to(self.device, non_blocking=True)
            done = self._up.record_event()
        self._compute.wait_event(done)
        there.record_stream(self._compute)
        return there

    def download(self, tensor: torch.Tensor) -> Download:
        """Begins to copy what the computing stream makes; ask the result when it is needed.

        The tensor must not change any more: the copy reads it while others compute.
        """
        if not self._cuda:
            return Download(tensor)
        made = self._compute.record_event()
        with torch.cuda.stream(self._down):
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._down.wait_event(made)
            pinned.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._down)
            # Waited for asleep: by default a thread spins, on a core that encoding needs.
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            return Download(pinned, self._down.record_event(arrived))

    def synchronize(self) -> None:
        """Waits until all that was computed is done."""
        if self._cuda:
            self._compute.synchronize()
