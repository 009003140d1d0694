"""What a run hands to a worker for one scene, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilemapper.archive.part import Part
from tilemapper.raster.secrets import redacted

TIME_IS_UP = "the time budget is used up"


@dataclass(frozen=True)
class SceneTask:
    """All that a worker needs. ``path`` may hold a signature: it is neither stored nor shown.

    model, model_sha256: its folder, and its card's digest when the run began. layers: where to
    stage what is written besides the map. until_s: when the run's time is up, as `time.time` tells
    it. stall_s: without a sign of life for so long, the scene counts as hung.
    """

    id: str
    path: str
    staged: str
    model: str
    model_sha256: str
    options: dict[str, Any]
    layers: dict[str, str] = field(default_factory=dict)
    bounds: tuple[float, float, float, float] | None = None
    min_px: int | None = None
    part: Part | None = None
    until_s: float | None = None
    stall_s: float = math.inf


def one_line(error: object, task: SceneTask) -> str:
    """An error in one line, without what is secret in the scene's address."""
    return redacted(" ".join(str(error).split()), task.path)[:1000]


@dataclass(frozen=True)
class StagedFile:
    """A finished file in staging."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass
class SceneOutcome:
    """What became of a scene: done, failed, skipped (by a filter), or later (not its fault).

    stop: what kept it for later keeps all others. away: it was the scene's server alone.
    files: the map under "map", then the layers of the task by their names.
    """

    id: str
    state: str
    line: str | None = None
    stop: bool = False
    away: bool = False
    seconds: float = 0.0
    head_sha256: str | None = None
    files: dict[str, StagedFile] = field(default_factory=dict)
    pixels: int = 0
    tiles: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str | None:
        """Of the map; None if there is none."""
        return self.files["map"].sha256 if "map" in self.files else None
