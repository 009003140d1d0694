"""What a run did, what it left for a later one, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

Tell = Callable[[dict[str, Any]], None]


@dataclass
class RunSummary:
    """What a run did and what it left; counts are of the scenes of its shard."""

    listed: int
    already_done: int
    done: int = 0
    failed: int = 0
    skipped: int = 0
    left: int = 0
    pixels: int = 0
    tiles: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    failed_before: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some failed, 75 some are left for a later run."""
        return 75 if self.left else (3 if self.failed else 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json`` and the report."""
        return asdict(self) | {"exit_code": self.exit_code}
