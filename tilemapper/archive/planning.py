"""What is to be done of an archive, and why: listed scenes against the ledger; nothing is opened.

An unchanged archive costs one `stat` for each scene and each output.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import MAX_DEATHS, Ledger
from tilemapper.archive.publishing import Outputs
from tilemapper.archive.rows import Change, Row
from tilemapper.archive.scene import Scene
from tilemapper.errors import JobError


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen with a scene. todo: it is to be rendered. held_by: a living run has it."""

    scene: Scene
    output: str
    todo: bool
    reason: str
    held_by: str | None = None


@dataclass
class ArchivePlan:
    """The decisions on all scenes of a shard, and what has to be written to the ledger for them."""

    decisions: list[Decision]
    recipe: str
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
        """What another run is rendering right now."""
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
            ledger.update(
                self.finished, "state='done', run=NULL, error=NULL, reason=NULL, output_stamp=?"
            )
        if self.back:
            ledger.mark_back(self.back)
        if self.gone:
            ledger.mark_gone(self.gone)


def shard_of(scene_id: str, count: int) -> int:
    """Which of ``count`` shards, counted from 0, a scene belongs to, whatever else is listed."""
    return int(scene_id[:12], 16) % count


def name_outputs(job: ArchiveJob, scenes: list[Scene]) -> dict[str, str]:
    """Output of each scene by id; scenes that are outputs themselves are left out.

    Raises:
        JobError: two scenes would be written to one output.
    """
    outputs: dict[str, str] = {}
    first: dict[str, Scene] = {}
    for scene in scenes:
        output = outputs[scene.id] = output_of(job, scene)
        other = first.setdefault(output, scene)
        if other is not scene:
            raise JobError(
                f"{scene.name} and {other.name}: both would be written to {output}; tell them "
                "apart in output.template, by {relpath} for instance"
            )
    # Outputs that lie among the sources are listed with them at the next run.
    return {s.id: outputs[s.id] for s in scenes if first.get(s.name) in (None, s)}


def output_of(job: ArchiveJob, scene: Scene) -> str:
    """The template filled in for a scene."""
    if scene.output is not None:
        return scene.output
    model = job.render.model.rstrip("/").rpartition("/")[2]
    values = {
        "stem": scene.stem, "name": job.name, "relpath": scene.relpath, "model": model,
        "date": scene.date or "undated",
    }  # fmt: skip
    path = job.output.template.format(**values | dict(scene.fields))
    if "/../" in path or path.endswith("/.."):
        raise JobError(f"{scene.name}: its output {path} would leave the output folder; rename it")
    return path


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
    named = name_outputs(job, scenes)
    rows = ledger.rows() if ledger is not None else {}
    living = ledger.living_runs() if ledger is not None else {}
    plan = ArchivePlan([], job.render.recipe(model_digest))
    outputs = Outputs(job)
    outputs.check()
    index, count = shard
    for scene in scenes:
        output = named.get(scene.id)
        if output is None or shard_of(scene.group or scene.id, count) != index - 1:
            continue
        row = rows.get(scene.id)
        if row is not None and row.gone:
            plan.back.append(scene.id)
        if row is not None and row.state == "running" and row.run in living:
            plan.decisions.append(
                Decision(scene, output, False, "held by another run", living[row.run])
            )
            continue
        plan.decisions.append(_decide(scene, output, row, plan, outputs, retry_failed))
    listed = set(named)
    plan.gone = [i for i, row in rows.items() if i not in listed and not row.gone]
    return plan


def _decide(
    scene: Scene, output: str, row: Row | None, plan: ArchivePlan, outputs: Outputs, again: bool
) -> Decision:
    """One scene's decision; notes in ``plan`` what the ledger must be told."""
    reason, keep = _why(scene, output, row, plan, outputs, again)
    if scene.fault is not None and reason is not None:
        plan.changes.append(_change(scene, output, "failed", None, scene.fault))
        return Decision(scene, output, False, "cannot be rendered")
    if reason is None:
        return Decision(scene, output, False, keep or "done")
    died = row is not None and row.state == "running"
    if died and row is not None and row.deaths + 1 >= MAX_DEATHS:
        line = (
            f"{scene.name}: the run was killed {MAX_DEATHS} times while rendering it; look at it "
            "alone with tilemapper render, then run with --retry-failed"
        )
        plan.changes.append(_change(scene, output, "failed", None, line))
        return Decision(scene, output, False, "kills the run")
    kept = reason in ("interrupted", "tried again", "never begun")
    change = _change(scene, output, "pending", reason, None)
    plan.changes.append(change._replace(keep=kept, died=int(died)))
    return Decision(scene, output, True, reason)


def _why(
    scene: Scene, output: str, row: Row | None, plan: ArchivePlan, outputs: Outputs, again: bool
) -> tuple[str | None, str | None]:
    """Why a scene is to be rendered, or (None, why not)."""
    if row is None:
        return "new", None
    if row.output != output:
        return "output renamed", None
    if not _same_source(scene, row, plan):
        return "source changed", None
    if row.state in ("running", "pending"):
        # The run may have died after it put the output in place and before it could say so.
        if row.output_sha256 and outputs.sha256(output) == row.output_sha256:
            plan.finished.append((outputs.stamp(output) or "", scene.id))
            return None, "done"
        return ("interrupted" if row.attempts or row.state == "running" else "never begun"), None
    if row.recipe != plan.recipe and not (row.state == "failed" and row.recipe is None):
        return "options or model changed", None
    if row.state == "failed":
        return ("retry of a failure", None) if again else (None, "failed before")
    if row.state == "skipped":
        return None, "skipped before"
    return _stands(output, row, plan, outputs)


def _stands(
    output: str, row: Row, plan: ArchivePlan, outputs: Outputs
) -> tuple[str | None, str | None]:
    stamp = outputs.stamp(output)
    if stamp is None:
        return "output missing", None
    if stamp != row.output_stamp:
        if outputs.sha256(output) != row.output_sha256:
            return "output altered", None
        plan.stamps.append((stamp, row.id))  # copied back, or touched: the same bytes
    return None, "done"


def _same_source(scene: Scene, row: Row, plan: ArchivePlan) -> bool:
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
        plan.times.append((scene.ctime_ns, scene.mtime_ns, scene.id))
    return same


def _change(scene: Scene, output: str, state: str, reason: str | None, error: str | None) -> Change:
    return Change(
        scene.id, scene.name, output, state, reason, error, scene.size_bytes, scene.mtime_ns,
        scene.ctime_ns, scene.etag,
    )  # fmt: skip
