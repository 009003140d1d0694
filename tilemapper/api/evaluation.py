"""What `evaluate` gives back: the figures, as plain values and as a table in a notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from tilemapper import notebook
from tilemapper.training.evaluate import Evaluation


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of a model on pairs.

    Attributes:
        model: name in the model's card.
        data: where the pairs are.
        split: ``held-out`` or ``all``.
        direction: AtoB or BtoA.
        tiled: measured through the render path.
        evaluation: the table: a row for each model compared and scale, with intervals.
        distances: FID and KID if ``weights`` were given.
        missed: a sentence for each figure that misses its bound.
    """

    model: str
    data: str
    split: str
    direction: str
    tiled: bool
    evaluation: Evaluation = field(repr=False)
    distances: dict[str, float] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, float]:
        """The model's figures at 256 px."""
        return self.evaluation.headline()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "direction": self.direction,
            "tiled": self.tiled,
            **self.evaluation.to_json(),
            # JSON has no NaN: a distance of fewer than two pairs is null, as figures are.
            **{name: value if isfinite(value) else None for name, value in self.distances.items()},
        }

    def _repr_html_(self) -> str:
        rows = self.evaluation.rows
        means = [row.metrics.mean() for row in rows]
        intervals = [row.metrics.intervals() for row in rows]
        head = ["", *(f"{row.who} @{row.scale}" for row in rows)]
        lines = [
            [name, *(_cell(m[name], i[name]) for m, i in zip(means, intervals, strict=True))]
            for name in means[0]
        ]
        lines += [[name, f"{value:.3f}"] for name, value in self.distances.items()]
        return notebook.table(
            [head, *lines], caption=f"{self.model} on {len(self.evaluation.names)} pairs"
        )


def _cell(mean: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{mean:.3f} [{low:.3f} {high:.3f}]" if low == low else "-"
