"""Watches losses without stopping the device: their means, and whether one is not finite."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from tilemapper.errors import TrainingError


class LossWatch:
    """Copies each step's losses to the host in the background and looks at those that arrived.

    On a CPU they are there at once. ``latest``: the last losses that arrived, by name.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.latest: dict[str, float] = {}
        self._waiting: deque[tuple[int, tuple[str, ...], Tensor, torch.cuda.Event | None]] = deque()
        self.forget()

    def forget(self) -> None:
        """Starts the means anew."""
        self._sums: dict[str, tuple[float, int]] = {}
        self._images, self._took_s, self._waited_s = 0, 0.0, 0.0

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        """Takes up the losses of a step.

        Raises:
            TrainingError: one that has arrived, of this step or an earlier one, is not finite.
        """
        values = torch.stack([value.float() for value in losses.values()])
        event = None
        if self.device.type == "cuda":
            values = values.to("cpu", non_blocking=True)
            # Of the device's stream: the current one is another device's where that is not ours.
            event = torch.cuda.current_stream(self.device).record_event()
        self._waiting.append((step, tuple(losses), values, event))
        while self._waiting and _arrived(self._waiting[0][3]):
            self._look()

    def settle(self) -> None:
        """Waits for all losses on their way; raises as `add`. To be called before saving."""
        while self._waiting:
            event = self._waiting[0][3]
            if event is not None:
                event.synchronize()
            self._look()

    def means(self) -> dict[str, float]:
        """Mean of each loss since `forget`; waits for those on their way."""
        self.settle()
        return {name: total / count for name, (total, count) in self._sums.items()}

    def pace(self, images: int, took_s: float, waited_s: float) -> None:
        """Takes up how long a step took, and how much of it was waiting for data."""
        self._images += images
        self._took_s += took_s
        self._waited_s += waited_s

    def rates(self) -> tuple[float, float]:
        """Images a second and share of the time spent waiting for data, since `forget`."""
        took = max(self._took_s, 1e-9)
        return self._images / took, self._waited_s / took

    def _look(self) -> None:
        step, names, values, _ = self._waiting.popleft()
        self.latest = dict(zip(names, values.tolist(), strict=True))
        for name, value in self.latest.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {step}: loss {name} is {value}; the last good checkpoint stays, lower "
                    "trainer.learning_rate or set trainer.clip, and --resume"
                )
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1


def _arrived(event: torch.cuda.Event | None) -> bool:
    return event is None or bool(event.query())  # type: ignore[no-untyped-call]
