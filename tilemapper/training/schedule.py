"""The learning rate over a run, as a factor of the share of the run that is done."""

from __future__ import annotations

import math


def rate_factor(schedule: str, done: float, *, warm_up: float = 0.0) -> float:
    """Factor of the learning rate, 0 to 1.

    Args:
        schedule: "constant", "linear" (from 1 to 0), "half-linear" (1 over the first half, then
            to 0, the paper), "cosine".
        done: share of the run that is done, 0 to 1.
        warm_up: share of the run over which the factor also rises from near 0.
    """
    done = min(max(done, 0.0), 1.0)
    factor = {
        "constant": 1.0,
        "linear": 1 - done,
        "half-linear": min(1.0, 2 - 2 * done),
        "cosine": (1 + math.cos(math.pi * done)) / 2,
    }[schedule]
    if done < warm_up:
        # Not from 0: the first step of a run should move.
        factor *= max(done / warm_up, 0.01)
    return factor
