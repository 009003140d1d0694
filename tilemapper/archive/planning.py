"""What is to be done of an archive, and why: listed scenes against the ledger; nothing is opened.

An unchanged archive costs one `stat` for each scene and each output.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tilemapper.archive.decisions import ArchivePlan, Decision
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import MAX_DEATHS, Ledger
from tilemapper.archive.naming import name_outputs
from tilemapper.archive.publishing import Outputs
from tilemapper.archive.rows import Change, Row
from tilemapper.archive.scene import Scene

Files = tuple[str, ...]


def shard_of(scene_id: str, count: int) -> int:
    """Which of ``count`` shards, counted from 0, a scene belongs to, whatever else is listed."""
    return int(scene_id[:12], 16) % count


def plan_archive(
    job: ArchiveJob,
    scenes: list[Scene],
    ledger: Ledger | None,
    *,
    model_digest: str,
    shard: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
) -> ArchivePlan:
    """Compares what is listed with the ledger (None: there is none yet).

    Raises:
        JobError: two scenes would be written to one output.
    """
    named = name_outputs(job, scenes, ledger.all_made() if ledger is not None else None)
    rows = ledger.rows() if ledger is not None else {}
    living = ledger.living_runs() if ledger is not None else {}
    recipe = job.render.recipe(model_digest)
    plan = ArchivePlan([], recipe, f"{recipe} {job.source.bounds} {job.source.min_px}")
    compared = _Comparison(plan, Outputs(job), retry_failed)
    compared.outputs.check()
    index, count = shard
    for scene in scenes:
        files = named.get(scene.id)
        if files is None or shard_of(scene.group or scene.id, count) != index - 1:
            continue
        row = rows.get(scene.id)
        if row is not None and row.gone:
            plan.back.append(scene.id)
        if row is not None and row.state == "running" and row.run in living:
            plan.decisions.append(
                Decision(scene, files, False, "held by another run", living[row.run])
            )
            continue
        if scene.passes:
            plan.decisions.append(Decision(scene, files, False, "not answered for", scene.fault))
            continue
        plan.decisions.append(compared.decide(scene, files, row))
    # What lies in a folder that cannot be listed now may all be there: its blocks are kept.
    closed = tuple(f"{scene.name}/" for scene in scenes if scene.closed)
    # Which scene an item has that a server does not give for now, nobody knows.
    unknown = any(scene.closed and scene.passes for scene in scenes)
    plan.gone = [
        i for i, row in rows.items()
        if i not in named and not (row.gone or unknown or row.source.startswith(closed))
    ]  # fmt: skip
    return plan


@dataclass(frozen=True)
class _Comparison:
    """Scenes against their rows; what the ledger must be told goes to ``plan``."""

    plan: ArchivePlan
    outputs: Outputs
    retry_failed: bool

    def decide(self, scene: Scene, files: Files, row: Row | None) -> Decision:
        """One scene's decision."""
        reason, keep = self._why(scene, files, row)
        if scene.fault is not None and reason is not None:
            self.plan.changes.append(_change(scene, files[0], "failed", None, scene.fault, row))
            return Decision(scene, files, False, "cannot be rendered")
        if reason is None:
            return Decision(scene, files, False, keep or "done")
        died = row is not None and row.state == "running"
        if died and row is not None and row.deaths + 1 >= MAX_DEATHS:
            line = (
                f"{scene.name}: the run was killed {MAX_DEATHS} times while rendering it; look at "
                "it alone with tilemapper render, then run with --retry-failed"
            )
            self.plan.changes.append(_change(scene, files[0], "failed", None, line, row))
            return Decision(scene, files, False, "kills the run")
        kept = reason in ("interrupted", "never begun")
        change = _change(scene, files[0], "pending", reason, None, row)
        self.plan.changes.append(change._replace(keep=kept, died=int(died)))
        return Decision(scene, files, True, reason)

    def _why(self, scene: Scene, files: Files, row: Row | None) -> tuple[str | None, str | None]:
        """Why a scene is to be rendered, or (None, why not)."""
        if row is None:
            return "new", None
        if row.output != files[0]:
            return "output renamed", None
        if not self._same_source(scene, row):
            return "source changed", None
        if row.state in ("running", "pending"):
            # The run may have died after it put the output in place and before it could say so.
            announced = row.output_sha256 if row.recipe == self.plan.recipe else None
            if announced and self.outputs.sha256(files) == announced:
                self.plan.finished.append((self.outputs.stamp(files) or "", scene.id))
                return None, "done"
            begun = row.attempts or row.state == "running"
            return ("interrupted" if begun else "never begun"), None
        if row.state == "skipped" and row.recipe != self.plan.skips:
            return "filters or options changed", None
        if row.state == "skipped":
            return None, "skipped before"
        if row.recipe != self.plan.recipe and not (row.state == "failed" and row.recipe is None):
            return "options or model changed", None
        if row.state == "failed":
            return ("retry of a failure", None) if self.retry_failed else (None, "failed before")
        return self._stands(files, row)

    def _stands(self, files: Files, row: Row) -> tuple[str | None, str | None]:
        stamp = self.outputs.stamp(files)
        if stamp is None:
            return "output missing", None
        if stamp != row.output_stamp:
            if self.outputs.sha256(files) != row.output_sha256:
                return "output altered", None
            self.plan.stamps.append((stamp, row.id))  # copied back, or touched: the same bytes
        return None, "done"

    def _same_source(self, scene: Scene, row: Row) -> bool:
        """Whether a source is what it was; its head is read only if its inode changed."""
        if scene.etag is not None or row.etag is not None or "://" in scene.path:
            return scene.etag == row.etag and scene.size_bytes == row.size_bytes
        if scene.size_bytes != row.size_bytes or scene.mtime_ns != row.mtime_ns:
            return False
        if scene.ctime_ns == row.ctime_ns:
            return True
        if row.state == "failed" or row.head_sha256 is None:
            return row.state != "failed"  # its rights may have been put right
        try:
            with Path(scene.path).open("rb") as file:
                same = hashlib.sha256(file.read(64 * 1024)).hexdigest() == row.head_sha256
        except OSError:
            return False
        if same:
            self.plan.times.append((scene.ctime_ns, scene.mtime_ns, scene.id))
        return same


def _change(
    scene: Scene, output: str, state: str, reason: str | None, error: str | None, row: Row | None
) -> Change:
    return Change(
        scene.id, scene.name, output, state, reason, error, scene.size_bytes, scene.mtime_ns,
        scene.ctime_ns, scene.etag, seen="" if row is None else row.seen,
    )  # fmt: skip
