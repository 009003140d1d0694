"""The run of an archive: claims scenes, has them rendered, publishes each exactly once."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tilemapper.archive.decisions import Decision
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.owning import check_owner, note_owner
from tilemapper.archive.planning import plan_archive
from tilemapper.archive.scene import Scene, is_large
from tilemapper.archive.session import Session
from tilemapper.archive.spreading import Spread
from tilemapper.archive.stalling import line_of, watched
from tilemapper.archive.summary import RunSummary, Tell
from tilemapper.archive.task import SceneOutcome, SceneTask
from tilemapper.archive.units import listed
from tilemapper.errors import TilemapperError
from tilemapper.networks.model import Model

if TYPE_CHECKING:
    from tilemapper.render.engine import Engine


def run_archive(
    job: ArchiveJob,
    model: Model,
    *,
    scenes: list[Scene] | None = None,
    shard: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    spread: Callable[[], Spread | None] = lambda: None,
    tell: Tell = lambda event: None,
    stalled: Callable[[str], None] | None = None,
) -> RunSummary:
    """Renders what is new or changed of an archive; an unchanged one reads no pixel.

    Args:
        job: a checked job.
        model: the model that it names, opened.
        scenes: what `listed` found, if it was called before.
        shard: (I, N): only the I-th of N parts, counted from 1.
        retry_failed: also what failed before and did not change since.
        spread: asked once something is to do: workers for scenes; None for this process, where
            they are rendered one after the other.
        tell: called with an event for each scene and for each batch of tiles.
        stalled: ends this process, with a line, when a scene has hung in it for
            `run.stall_minutes`; it is waited for if None. Workers end themselves.

    Raises:
        JobError: the archive cannot be listed, two scenes would share an output, or the ledger is
            another job's.
        TargetError, DiskFullError, LockedError: the ledger, or no output at all, can be written.
        ModelError, DeviceError: the model cannot be loaded.
        NoWorkerError: no scheduler answers, or no worker is left.
    """
    begun = time.monotonic()
    job.render.check_model(model.card.name, has_classes=model.card.head == "palette")
    found = listed(job, model.card.gsd_m) if scenes is None else scenes
    with Ledger(job.work / "ledger.sqlite") as ledger:
        check_owner(job, ledger)
        note_owner(job, ledger)
        plan = plan_archive(
            job, found, ledger, model_digest=model.card.digest, shard=shard,
            retry_failed=retry_failed,
        )  # fmt: skip
        plan.write(ledger)
        run = Session(job, model, ledger, plan, tell, stalled)
        tell({
            "listed": len(found), "planned": len(plan.decisions), "todo": len(plan.todo),
            "gone": len(plan.gone), "reasons": plan.reasons(),
        })  # fmt: skip
        for decision in plan.held:
            if decision.scene.passes:
                run.tell_of(decision, SceneOutcome(decision.scene.id, "later", decision.held_by))
        if plan.todo:
            run.check_outputs()
            with _registered(run, job.run.lease_s):
                _rounds(run, spread())
                run.tell_of_servers()
                _sweep(run)
        states = [ledger.state_of(scene) for scene in run.elsewhere]
        run.summary.already_done += states.count("done")
        open_still = states.count("pending") + states.count("running")
        run.summary.left = len(run.waiting) + len(plan.held) + open_still
        run.summary.seconds = round(time.monotonic() - begun, 3)
        return run.summary


def _rounds(run: Session, spread: Spread | None) -> None:
    """All scenes once, then those that failed, as often as the job says; parts of mosaics last."""
    run.staging.make()
    for is_part in (False, True):
        for _ in range(run.job.run.retries + 1):
            batch = [d for d in run.waiting.values() if (d.scene.part is not None) == is_part]
            if not batch or run.summary.stopped:
                break
            run.servers.try_again()
            for outcome in _outcomes(run, batch, spread):
                run.close(outcome)


def _sweep(run: Session) -> None:
    """Removes what is staged of scenes that are done by now, or gone."""
    staged = list(run.staging.folder.iterdir())
    # Only now: whatever another run stages after this was not listed above.
    run.staging.sweep(
        run.ledger.ids("state IN ('pending', 'running', 'failed') AND NOT gone"), staged
    )


def _outcomes(run: Session, batch: list[Decision], spread: Spread | None) -> Iterable[SceneOutcome]:
    """A batch of scenes, rendered where the spread says: whole ones first, then block by block."""
    if spread is None:
        return map(functools.partial(_here, run, engine=run.engine), run.tasks(batch))
    rest = batch[len(batch) - len(batch) % spread.staff :] if spread.staff else []
    if len(rest) < len(batch) and not any(is_large(decision.scene) for decision in rest):
        rest = []  # sooner done one by one than block by block
    whole = batch[: len(batch) - len(rest)]
    return itertools.chain(
        spread.many(run.tasks(whole)) if whole else (), _by_blocks(run, rest, spread)
    )


def _by_blocks(run: Session, batch: list[Decision], spread: Spread) -> Iterator[SceneOutcome]:
    """Scenes one after the other, the blocks of each over all workers."""
    for task in run.tasks(batch, spread.few()):
        yield _here(run, task)


def _here(run: Session, task: SceneTask, engine: Engine | None = None) -> SceneOutcome:
    """Renders a scene in this process; one that stalls ends it, if whoever runs it wants that."""
    from tilemapper.archive.worker import render_scene  # loads torch: not where nothing is to do

    stalled = run.stalled
    if stalled is None:
        return render_scene(task, engine=engine, tick=run.tick)
    line = line_of(task, "so the run ends; finished scenes are kept, run the same command again")
    with watched(task.stall_s, lambda: stalled(line)) as sign:

        def tick(tiles: int) -> None:
            sign(tiles)
            run.tick(tiles)

        return render_scene(task, engine=engine, tick=tick)


@contextlib.contextmanager
def _registered(run: Session, lease_s: float) -> Iterator[None]:
    """Registers a run, lets its heart beat, and hands back what it still holds at the end."""
    run.ledger.begin_run(run.id, lease_s=lease_s)
    ended = threading.Event()

    def beat() -> None:
        with contextlib.suppress(TilemapperError), Ledger(run.ledger.path) as own:
            while not ended.wait(lease_s / 3):
                with contextlib.suppress(TilemapperError):
                    own.beat(run.id)

    heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
    heart.start()
    outcome = "interrupted"
    try:
        yield
        outcome = run.summary.stopped or "ended"
    finally:
        ended.set()
        heart.join()
        run.ledger.end_run(run.id, outcome)
