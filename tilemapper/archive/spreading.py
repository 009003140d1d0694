"""How scenes are spread: over workers while there are many, block by block when there are few."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tilemapper.archive.task import SceneOutcome, SceneTask

Work = Callable[[SceneTask], SceneOutcome]


@dataclass(frozen=True)
class Spread:
    """Workers for scenes.

    workers: processes to start here; scheduler: of a running cluster; device: as the job has it,
    or the kind that ``auto`` stands for.
    """

    workers: int = 2
    scheduler: str | None = None
    insecure: bool = False
    device: str = "cpu"

    @functools.cached_property
    def staff(self) -> int:
        """How many workers there are: with fewer scenes, each scene's blocks are spread.

        Raises:
            NoWorkerError: no scheduler answers.
        """
        if self.scheduler is None:
            return self.workers
        from tilemapper.render.calls import staff  # loads dask

        return staff(self.scheduler, insecure=self.insecure, device=self.device)

    def many(self, tasks: Iterator[SceneTask]) -> Iterable[SceneOutcome]:
        """Whole scenes over the workers.

        Raises:
            NoWorkerError: no scheduler answers, or no worker is left.
        """
        from tilemapper.archive.engines import render_on_worker  # loads torch
        from tilemapper.render.calls import spread_calls  # loads dask
        from tilemapper.render.division import threads_each

        threads = None if self.scheduler else threads_each(self.workers)
        # Of our own workers each sees one GPU, which is its first, whatever number it has here.
        sees_one = self.scheduler is None and self.device.startswith("cuda")
        return spread_calls(
            functools.partial(render_on_worker, threads=threads),
            map(_on_the_first_gpu, tasks) if sees_one else tasks,
            failed=_failed,
            workers=self.workers,
            scheduler=self.scheduler,
            device=self.device,
            insecure=self.insecure,
        )

    def few(self) -> dict[str, Any]:
        """Options of `tilemapper.render` that spread the blocks of one scene instead."""
        if self.scheduler is not None:
            return {"scheduler": self.scheduler, "insecure": self.insecure}
        return {"workers": self.workers}


def _on_the_first_gpu(task: SceneTask) -> SceneTask:
    return replace(task, options=task.options | {"device": "cuda:0"})


def _failed(task: SceneTask, line: str) -> SceneOutcome:
    return SceneOutcome(task.id, "failed", line)
