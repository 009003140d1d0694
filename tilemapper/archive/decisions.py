"""What is to happen with each scene of an archive, and what its ledger must be told of it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from tilemapper.archive.ledger import Ledger
from tilemapper.archive.rows import Change
from tilemapper.archive.scene import Scene


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen with a scene. todo: it is to be rendered.

    outputs: its map, and what else is written of it. held_by: a living run that has it, or why
    its server tells nothing of it now; a later run sees to it.
    """

    scene: Scene
    outputs: tuple[str, ...]
    todo: bool
    reason: str
    held_by: str | None = None

    @property
    def output(self) -> str:
        """Its map."""
        return self.outputs[0]


@dataclass
class ArchivePlan:
    """The decisions on all scenes of a shard, and what has to be written to the ledger for them.

    recipe: of outputs. skips: of scenes that a filter left out, which filters decide too.
    """

    decisions: list[Decision]
    recipe: str
    skips: str = ""
    changes: list[Change] = field(default_factory=list)
    stamps: list[tuple[str | None, str]] = field(default_factory=list)
    times: list[tuple[int | None, int | None, str]] = field(default_factory=list)
    finished: list[tuple[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)

    @property
    def todo(self) -> list[Decision]:
        """What is to be rendered."""
        return [decision for decision in self.decisions if decision.todo]

    @property
    def held(self) -> list[Decision]:
        """What another run is rendering right now, or no server tells of."""
        return [decision for decision in self.decisions if decision.held_by]

    def reasons(self) -> dict[str, int]:
        """How many scenes are to be rendered, by reason."""
        return dict(Counter(decision.reason for decision in self.todo).most_common())

    def write(self, ledger: Ledger) -> None:
        """Puts the plan into the ledger."""
        if self.changes:
            ledger.upsert(self.changes)
        if self.stamps:
            ledger.update(self.stamps, "output_stamp=?")
        if self.times:
            ledger.update(self.times, "ctime_ns=?, mtime_ns=?")
        if self.finished:
            now = time.time()
            ledger.update(
                [(now, stamp, scene) for stamp, scene in self.finished],
                "state='done', run=NULL, error=NULL, reason=NULL, deaths=0, ended_s=?, "
                "output_stamp=?",
            )
        if self.back:
            ledger.mark_back(self.back)
        if self.gone:
            ledger.mark_gone(self.gone)
