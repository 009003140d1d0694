"""One run: claims scenes, makes tasks of them, publishes what comes back exactly once."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets as random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tilemapper.archive import publishing, remote
from tilemapper.archive.engines import engine_for
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.mosaic_vrt import vrt_text
from tilemapper.archive.planning import ArchivePlan, Decision
from tilemapper.archive.scene import Scene
from tilemapper.archive.secrets import redacted
from tilemapper.archive.worker import SceneOutcome, SceneTask
from tilemapper.errors import TargetError, TilemapperError, TryAgainError
from tilemapper.networks.model import Model
from tilemapper.raster.atomic import write_text_atomic
from tilemapper.render.engine import Engine

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


class Session:
    """One run: its name in the ledger, its deadline, and what it has counted so far."""

    def __init__(
        self, job: ArchiveJob, model: Model, ledger: Ledger, plan: ArchivePlan, tell: Tell
    ) -> None:
        self.job, self.model, self.ledger, self.plan, self.tell = job, model, ledger, plan, tell
        self.id = random.token_hex(8)
        minutes = job.run.time_budget_minutes
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.staging = job.work / "staging"
        self.options = job.render.options()
        self.made = ledger.ids("made")
        deaths = ledger.ids("deaths")
        # Scenes that a run died of come last: they must not keep the others waiting.
        todo = sorted(plan.todo, key=lambda decision: decision.scene.id in deaths)
        self.waiting = {decision.scene.id: decision for decision in todo}
        self.tries: dict[str, int] = {}
        self.elsewhere: list[str] = []
        ours = {decision.scene.id for decision in plan.decisions if not decision.todo}
        failed = [
            {"scene": row["source"], "error": row["error"] or ""}
            for row in ledger.select("state='failed' AND NOT gone ORDER BY source")
            if row["id"] in ours
        ]
        reasons = [decision.reason for decision in plan.decisions]
        self.summary = RunSummary(
            listed=len(plan.decisions),
            already_done=reasons.count("done"),
            skipped=reasons.count("skipped before"),
            failed=len(failed),
            failed_before=len(failed),
            failures=failed,
        )

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine for all scenes that are rendered in this process."""
        names = ("device", "precision", "batch_size", "tta", "compiled")
        return engine_for(self.model, **{name: self.options[name] for name in names})

    def tasks(self, batch: Iterable[Decision]) -> Iterator[SceneTask]:
        """Claims one scene after the other, for as long as time and disk last."""
        for decision in batch:
            if self.summary.stopped or self._is_over():
                return
            scene = decision.scene
            if scene.group is not None and not self._stands(scene):
                continue
            if not self.ledger.claim(scene.id, self.id):
                del self.waiting[scene.id]  # another run was first
                self.elsewhere.append(scene.id)
                continue
            try:
                known = scene.id in self.made
                publishing.check_free(
                    decision.output, known=known, overwrite=self.job.output.overwrite
                )
                task = self._task(scene)
                if scene.mosaic is not None:
                    publishing.prepare(scene.path)
                    write_text_atomic(Path(scene.path), vrt_text(scene.mosaic))
                yield task
            except TryAgainError as error:
                self._stop(scene.id, str(error))
                return
            except TilemapperError as error:
                self.close(SceneOutcome(scene.id, "failed", " ".join(str(error).split())))

    def _stands(self, part: Scene) -> bool:
        """Whether the mosaic of a part is done; if it failed, so does the part."""
        state = self.ledger.state_of(str(part.group))
        if state == "failed" and self.ledger.claim(part.id, self.id):
            line = f"{part.name}: its mosaic could not be rendered; see the mosaic's own reason"
            self.tries[part.id] = self.job.run.retries
            self.close(SceneOutcome(part.id, "failed", line))
        return state == "done"

    def _is_over(self) -> bool:
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.summary.stopped = "the time budget is used up"
        free_gb = shutil.disk_usage(self.staging).free / 1e9
        if free_gb < self.job.run.min_free_gb:
            self.summary.stopped = (
                f"{free_gb:.1f} GB of disk are free, run.min_free_gb is {self.job.run.min_free_gb}"
            )
        return self.summary.stopped is not None

    def _task(self, scene: Scene) -> SceneTask:
        version = [self.plan.recipe, scene.size_bytes, scene.mtime_ns, scene.etag]
        key = hashlib.sha256(json.dumps(version).encode()).hexdigest()[:12]
        staged = self.staging / f"{scene.id}-{key}.tif"
        for stale in self.staging.glob(f"{scene.id}-*"):
            if not stale.name.startswith(staged.name):
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        options = dict(self.options)
        if scene.mosaic is not None:
            # Its members were opened one by one, by first bytes and header, when it was made.
            options["allow_drivers"] = (*options["allow_drivers"], "VRT")
        return SceneTask(
            id=scene.id,
            path=scene.path,
            staged=str(staged),
            model=str(self.model.folder),
            options=options,
            bounds=self.job.source.bounds,
            min_px=self.job.source.min_px,
            part=scene.part,
        )

    def tick(self, tiles: int) -> None:
        """Ends the scene under way when time is up; its finished blocks are kept."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TryAgainError("the time budget is used up")
        self.tell({"tiles": tiles})

    def close(self, outcome: SceneOutcome) -> None:
        """Publishes a scene, or notes why not; a failed one stays waiting for its next try."""
        decision = self.waiting[outcome.id]
        if outcome.state == "done":
            outcome = self._publish(decision, outcome)
        if outcome.state == "later":
            if outcome.stop:
                self._stop(outcome.id, outcome.line or "")
            return
        tries = self.tries[outcome.id] = self.tries.get(outcome.id, 0) + 1
        if outcome.state == "failed" and tries <= self.job.run.retries:
            self.ledger.give_up(outcome.id, self.id, "pending", outcome.line)
            return
        if outcome.state in ("failed", "skipped"):
            self.ledger.give_up(
                outcome.id, self.id, outcome.state, outcome.line, recipe=self.plan.recipe
            )
        del self.waiting[outcome.id]
        self._count(decision, outcome)

    def _count(self, decision: Decision, outcome: SceneOutcome) -> None:
        summary, name = self.summary, decision.scene.name
        setattr(summary, outcome.state, getattr(summary, outcome.state) + 1)
        if outcome.state == "done":
            summary.pixels += outcome.pixels
            summary.tiles += outcome.tiles
        if outcome.state == "failed":
            summary.failures.append({"scene": name, "error": outcome.line or ""})
        self.tell({
            "scene": name, "state": outcome.state, "reason": decision.reason,
            "output": decision.output if outcome.state == "done" else None,
            "error": outcome.line, "seconds": outcome.seconds, "pixels": outcome.pixels,
            "sha256": outcome.sha256,
        })  # fmt: skip

    def _publish(self, decision: Decision, outcome: SceneOutcome) -> SceneOutcome:
        """The outcome, done once the output stands; otherwise what kept it from that."""
        scene, output = decision.scene, decision.output
        staged, sha256 = Path(self._task(scene).staged), str(outcome.sha256)
        facts = {
            "head_sha256": outcome.head_sha256, "recipe": self.plan.recipe,
            "seconds": outcome.seconds, "pixels": outcome.pixels, "tiles": outcome.tiles,
            "output_bytes": outcome.size_bytes,
            "facts": json.dumps(outcome.facts | {"date": scene.date}),
        }  # fmt: skip
        try:
            if not staged.exists():
                raise TargetError(
                    f"{staged}: is not to be seen here; scenes that other machines render need "
                    "output.work on a file system that they share"
                )
            publishing.prepare(output)
            if remote.is_remote(output):
                publishing.upload(staged, output, sha256)
            own = self.ledger.announce(scene.id, self.id, sha256=sha256, facts=facts)
            own = own and self.ledger.publish(
                scene.id, self.id, lambda: publishing.put(staged, output, sha256)
            )
        except TryAgainError as error:
            return SceneOutcome(scene.id, "later", str(error), stop=True)
        except TilemapperError as error:
            return SceneOutcome(scene.id, "failed", redacted(" ".join(str(error).split())))
        staged.unlink(missing_ok=True)  # of a remote output
        if not own:
            return SceneOutcome(scene.id, "later", f"{scene.name}: another run took it over")
        return outcome

    def _stop(self, scene: str, why: str) -> None:
        self.ledger.give_up(scene, self.id, "pending", None)
        self.summary.stopped = redacted(why)
