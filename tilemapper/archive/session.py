"""One run: claims scenes, makes tasks of them, publishes what comes back exactly once."""

from __future__ import annotations

import functools
import secrets as random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tilemapper.archive import publishing, remote
from tilemapper.archive.decisions import ArchivePlan, Decision
from tilemapper.archive.handover import Handover
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.scene import Scene
from tilemapper.archive.servers import Servers
from tilemapper.archive.staging import Staging, free_gb_at
from tilemapper.archive.summary import RunSummary, Tell
from tilemapper.archive.task import TIME_IS_UP, SceneOutcome, SceneTask
from tilemapper.errors import TilemapperError, TryAgainError
from tilemapper.networks.model import Model
from tilemapper.raster.secrets import redacted

if TYPE_CHECKING:
    from tilemapper.render.engine import Engine


class Session:
    """One run: its name in the ledger, its deadline, and what it has counted so far."""

    def __init__(
        self,
        job: ArchiveJob,
        model: Model,
        ledger: Ledger,
        plan: ArchivePlan,
        tell: Tell,
        stalled: Callable[[str], None] | None = None,
    ) -> None:
        self.job, self.model, self.ledger, self.plan, self.tell = job, model, ledger, plan, tell
        self.stalled = stalled
        self.id = random.token_hex(8)
        minutes = job.run.time_budget_minutes
        self.until_s = None if minutes is None else time.time() + 60 * minutes
        self.staging = Staging(job.work / "staging")
        self.handover = Handover(job, model, ledger, self.staging, plan.recipe, self.id)
        self.options = job.render.options()
        deaths = ledger.ids("deaths")
        # Scenes that a run died of come last: they must not keep the others waiting.
        todo = sorted(plan.todo, key=lambda decision: decision.scene.id in deaths)
        self.waiting = {decision.scene.id: decision for decision in todo}
        self.tries: dict[str, int] = {}
        self.elsewhere: list[str] = []
        self.servers = Servers()
        ours = {
            decision.scene.id
            for decision in plan.decisions
            if not (decision.todo or decision.held_by)
        }
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
        from tilemapper.archive.engines import engine_for  # loads torch

        names = ("device", "precision", "batch_size", "tta", "compiled")
        return engine_for(self.model, **{name: self.options[name] for name in names})

    def tasks(
        self, batch: Iterable[Decision], more: dict[str, Any] | None = None
    ) -> Iterator[SceneTask]:
        """Claims one scene after the other, for as long as time and disk last.

        more: options of the render on top of the job's.
        """
        for decision in batch:
            if self.summary.stopped or self._is_over():
                return
            scene = decision.scene
            if scene.group is not None and not self._stands(scene):
                continue
            if self.servers.is_away(scene):
                continue  # in the next round, or run
            if not self._claim(scene):
                self._leave(scene.id)  # another run was first
                continue
            try:
                yield self.handover.task(decision, self.options | (more or {}), self.until_s)
            except TryAgainError as error:
                self._stop(scene.id, str(error))
                return
            except TilemapperError as error:
                self.close(SceneOutcome(scene.id, "failed", " ".join(str(error).split())))

    def _claim(self, scene: Scene) -> bool:
        return self.ledger.claim(scene.id, self.id, etag=scene.etag)

    def _stands(self, part: Scene) -> bool:
        """Whether the mosaic of a part is done; if it failed or was skipped, so is the part."""
        state = self.ledger.state_of(str(part.group))
        if state in ("failed", "skipped") and self._claim(part):
            why = "could not be rendered" if state == "failed" else "is left out by a filter"
            line = f"{part.name}: its mosaic {why}; see the mosaic's own reason"
            self.tries[part.id] = self.job.run.retries
            self.close(SceneOutcome(part.id, state, line))
        return state == "done"

    def _is_over(self) -> bool:
        if self.until_s is not None and time.time() > self.until_s:
            self.summary.stopped = TIME_IS_UP
        free_gb = min(self.staging.free_gb(), free_gb_at(self.job.root))
        if free_gb < self.job.run.min_free_gb:
            self.summary.stopped = (
                f"{free_gb:.1f} GB of disk are free, run.min_free_gb is {self.job.run.min_free_gb}"
            )
        return self.summary.stopped is not None

    def tell_of_servers(self) -> None:
        """Tells of the scenes that are left since their servers did not give them."""
        for scene, line in self.servers.lines.items():
            if scene in self.waiting:
                self.tell_of(self.waiting[scene], SceneOutcome(scene, "later", line))

    def tick(self, tiles: int) -> None:
        """Tells of tiles done in this process."""
        self.tell({"tiles": tiles})

    def close(self, outcome: SceneOutcome) -> None:
        """Publishes a scene, or notes why not; a failed one stays waiting for its next try."""
        decision = self.waiting[outcome.id]
        if outcome.state == "failed" and (said := remote.trouble(decision.scene.path)):
            outcome = SceneOutcome(outcome.id, "later", redacted(said), away=True)
        if outcome.state != "later":
            self.servers.answered(decision.scene)
        if outcome.state == "done":
            outcome = self.handover.publish(decision, outcome)
            if outcome.state == "failed" and (refused := self._refused()):
                outcome = SceneOutcome(outcome.id, "later", refused, stop=True)
        if outcome.state != "done" and not self.ledger.holds(outcome.id, self.id):
            # This run's heart had stopped. What went wrong since may be the other's doing, which
            # stages under the same name.
            self._leave(outcome.id)
            return
        if outcome.away:
            self.servers.silent(decision.scene, outcome.line or "")
            self.ledger.give_up(outcome.id, self.id, "pending", None)
            return
        if outcome.state == "later":
            if outcome.stop:
                self._stop(outcome.id, outcome.line or "")
            return
        tries = self.tries[outcome.id] = self.tries.get(outcome.id, 0) + 1
        if outcome.state == "failed" and tries <= self.job.run.retries:
            self.ledger.give_up(outcome.id, self.id, "pending", outcome.line)
            return
        if outcome.state in ("failed", "skipped"):
            recipe = self.plan.skips if outcome.state == "skipped" else self.plan.recipe
            self.ledger.give_up(
                outcome.id, self.id, outcome.state, outcome.line, recipe=recipe,
                facts=outcome.facts,
            )  # fmt: skip
        del self.waiting[outcome.id]
        self._count(decision, outcome)

    def check_outputs(self) -> None:
        """Refuses a run whose maps would all be rendered for nothing.

        Raises:
            TargetError, TryAgainError: see `publishing.check_taken`.
        """
        own = str(self.job.work) + "/"  # of mosaics of which only the parts are outputs
        waiting = self.waiting.values()
        publishing.check_taken(d.outputs for d in waiting if not d.output.startswith(own))

    def _refused(self) -> str | None:
        """What keeps all outputs from where they belong by now, if anything does."""
        try:
            self.check_outputs()
        except TilemapperError as error:
            return " ".join(str(error).split())
        return None

    def _leave(self, scene: str) -> None:
        """Leaves a scene to another run."""
        del self.waiting[scene]
        self.elsewhere.append(scene)

    def _count(self, decision: Decision, outcome: SceneOutcome) -> None:
        summary, name = self.summary, decision.scene.name
        setattr(summary, outcome.state, getattr(summary, outcome.state) + 1)
        if outcome.state == "done":
            summary.pixels += outcome.pixels
            summary.tiles += outcome.tiles
        if outcome.state == "failed":
            summary.failures.append({"scene": name, "error": outcome.line or ""})
        self.tell_of(decision, outcome)

    def tell_of(self, decision: Decision, outcome: SceneOutcome) -> None:
        """Tells what became of a scene."""
        self.tell({
            "scene": decision.scene.name, "state": outcome.state, "reason": decision.reason,
            "output": decision.output if outcome.state == "done" else None,
            "error": outcome.line, "seconds": outcome.seconds, "pixels": outcome.pixels,
            "sha256": outcome.sha256,
        })  # fmt: skip

    def _stop(self, scene: str, why: str) -> None:
        self.ledger.give_up(scene, self.id, "pending", None)
        self.summary.stopped = redacted(why)
