"""What a run writes down while it goes on: ``metrics.jsonl`` and TensorBoard events."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.atomic import write_text_atomic

METRICS_NAME = "metrics.jsonl"


class Recorder:
    """Appends one JSON line an event, and the same figures as TensorBoard events.

    On resume, lines after the resumed step are taken out: that part is done again.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second, for runs only

        self.path = folder / METRICS_NAME
        kept = [e for e in read_events(self.path) if e["step"] <= first_step]
        write_text_atomic(self.path, "".join(json.dumps(event) + "\n" for event in kept))
        self._board: Any = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else None
        )

    def event(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Records figures of a step; ``kind`` is "train" or "held_out"."""
        plain = {name: _plain(value) for name, value in figures.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **plain}) + "\n")
        for name, value in plain.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def image(self, name: str, step: int, image: NDArray[np.uint8]) -> None:
        """Records an image (h, w, 3) uint8."""
        self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what TensorBoard still holds."""
        self._board.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a run, in order; a torn last line, as a kill leaves it, is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("step"), int):
            events.append(event)
    return events


def _plain(value: float) -> float | None:
    # JSON has no NaN; a figure that is not defined is null.
    return round(float(value), 6) if math.isfinite(value) else None
