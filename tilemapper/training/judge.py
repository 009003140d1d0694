"""Which step of a run was the best one, by the held-out pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tilemapper.training.config import TrainingJob
from tilemapper.training.heldout import HeldOut, better
from tilemapper.training.task import Stopped


class Judge:
    """Measures a run's generator on the held-out pairs, and remembers the best figure.

    ``leads``: the run was left on its way with weights that are better than its best checkpoint.
    Without held-out pairs (and in all processes but the first) nothing is ever measured.
    """

    def __init__(self, held_out: HeldOut | None, job: TrainingJob) -> None:
        self.held_out = held_out
        self.best_by = job.trainer.best_by
        self.best: float | None = None
        self.leads = False
        self._measured_at = -1
        self._saved_at: int | None = None

    def measure(
        self, generator: nn.Module, step: int, device: torch.device, *, check: Callable[[], None]
    ) -> dict[str, float] | None:
        """The figures after this step; None where it was measured, or a stop is asked for."""
        if not self.held_out or self._measured_at == step:
            return None
        try:
            return self.held_out.measure(generator, device, check=check)
        except Stopped:
            return None

    def weigh(self, figures: Mapping[str, float], step: int, *, on_the_way: bool) -> bool:
        """Takes note of a step's figures; returns whether its checkpoint will be the best.

        ``on_the_way``: the run is left, to be resumed. One that was not stopped is not measured
        here, and a resumed one must end as it: so this step only leads, and nothing is remembered.
        """
        figure = figures[self.best_by]
        is_better = better(self.best_by, figure, self.best)
        if on_the_way:
            self.leads = is_better
            return False
        self._measured_at = step
        if is_better:
            self.best = figure
        return is_better

    def saved(self, step: int) -> None:
        """Told that the best checkpoint, of this step, is written."""
        self._saved_at = step

    def saved_here(self, step: int) -> bool:
        """Whether this call wrote the best checkpoint, and that of this very step."""
        return self._saved_at == step

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this."""
        return {"best": self.best, "measured_at": self._measured_at}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up what a checkpoint holds, unless that was the best of another figure."""
        if json.loads(state["job"])["trainer"]["best_by"] == self.best_by:
            self.best = state["best"]
            self._measured_at = int(state.get("measured_at", -1))  # older ones lack it
