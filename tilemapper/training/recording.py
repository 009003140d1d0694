"""What a run writes down while it goes on: ``metrics.jsonl`` and TensorBoard events."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.atomic import write_text_atomic, writing_failed
from tilemapper.training.board import Board

METRICS_NAME = "metrics.jsonl"


class Recorder:
    """Appends one JSON line an event, and the same figures as TensorBoard events.

    On resume, lines after the resumed step are taken out: that part is done again. All methods
    raise DiskFullError or TargetError when the folder cannot be written; checkpoints stay.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self.path = folder / METRICS_NAME
        kept = [e for e in read_events(self.path) if e["step"] <= first_step]
        write_text_atomic(self.path, "".join(json.dumps(event) + "\n" for event in kept))
        with _failures_named(folder / "tensorboard"):
            purge_step = first_step + 1 if first_step else None
            self._board = Board(folder / "tensorboard", purge_step=purge_step)

    def event(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        """Records figures of a step; ``kind`` is "train" or "held_out"."""
        plain = {name: _plain(value) for name, value in figures.items()}
        with _failures_named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **plain}) + "\n")
        with _failures_named(self.path.parent / "tensorboard"):
            for name, value in plain.items():
                if value is not None:
                    self._board.scalar(f"{kind}/{name}", value, step)
            self._board.flush()

    def image(self, name: str, step: int, image: NDArray[np.uint8]) -> None:
        """Records an image (h, w, 3) uint8."""
        with _failures_named(self.path.parent / "tensorboard"):
            self._board.image(name, image, step)
            self._board.flush()

    def close(self) -> None:
        """Ends the files."""
        with _failures_named(self.path.parent / "tensorboard"):
            self._board.close()


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """Turns an OSError inside into the error that a user can act on."""
    try:
        yield
    except OSError as error:
        raise writing_failed(path, error) from error


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
