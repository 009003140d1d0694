"""What a trainer is made to train, and what it is told and tells while it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from tilemapper.training.feed import Batch


class Task(Protocol):
    """What learns: `Pix2Pix` or `CycleGan`."""

    generator: nn.Module
    modules: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]

    def step(self, batch: Batch, step: int, done: float) -> dict[str, Tensor]:
        """Learns from one batch."""
        ...

    def extra_state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides networks and optimisers."""
        ...

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """The counterpart of `extra_state`."""
        ...


@dataclass(frozen=True)
class Progress:
    """What a caller may show while a run goes on. ``losses`` are the last ones known."""

    step: int
    done: float
    losses: dict[str, float]
    images_per_s: float
    waiting_share: float


class Stopped(Exception):
    """Raised by `Limits.check` in the middle of work that leaves nothing behind and is done again.

    Reading pairs, measuring and exporting take minutes where the machine is slow; whoever asks
    for a stop may kill what has not ended after ten seconds.
    """


@dataclass
class Limits:
    """When to leave the loop early. ``stop`` is asked after every step."""

    budget_s: float | None = None
    stop: Callable[[], bool] = field(default=lambda: False)

    def check(self) -> None:
        """Raises `Stopped` when a stop is asked for."""
        if self.stop():
            raise Stopped
