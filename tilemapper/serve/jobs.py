"""Whole maps, rendered in the background one after another, for download.

A finished map also serves the tiles of all zooms, farther out than live tiles go.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilemapper.errors import TilemapperError
from tilemapper.networks.model import Model
from tilemapper.serve.generator import Generator
from tilemapper.serve.limits import BusyError, GoneError
from tilemapper.serve.scenes import Scene
from tilemapper.serve.wholemap import Cancelled, render_whole


@dataclass
class Job:
    """One whole map. ``state``: waiting, running, done, failed or cancelled."""

    id: int
    scene: Scene
    model: Model
    folder: Path
    state: str = "waiting"
    tiles: int = 0
    tiles_done: int = 0
    map_bytes: int | None = None  # when it is done
    error: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    png_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def target(self) -> Path:
        """The map as a GeoTIFF."""
        return self.folder / "map.tif"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "cancelled")

    def progress(self, tiles: int, of: int) -> None:
        """Takes note of further tiles that are done; raises Cancelled if nobody wants them."""
        self.tiles, self.tiles_done = of, self.tiles_done + tiles
        if self.cancelled.is_set():
            raise Cancelled

    def file_name(self, ending: str) -> str:
        """What a browser should call the download."""
        return f"{Path(self.scene.name).stem}_{self.model.card.name}.{ending}"

    def to_json(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {
            "id": self.id,
            "scene": self.scene.id,
            "model": self.model.card.name,
            "state": self.state,
            "tiles": self.tiles,
            "tiles_done": min(self.tiles_done, self.tiles),
            "bytes": self.map_bytes,
            "error": self.error,
        }


class Jobs:
    """Runs jobs in a thread of its own; the generator stays that of the live tiles.

    Args:
        folder: for the maps.
        generator: whose thread paints.
        waiting: jobs that may wait; a further one is refused.
        kept: ended jobs that are kept; older ones are removed with their maps.
        device, precision, overlap: as the options of ``render``.
    """

    def __init__(
        self,
        folder: Path,
        generator: Generator,
        *,
        waiting: int,
        kept: int,
        device: str = "auto",
        precision: str = "auto",
        overlap: int | None = None,
    ) -> None:
        self._folder, self._generator = folder, generator
        self._most_waiting, self._most_kept = waiting, kept
        self._options: dict[str, Any] = {"device": device, "precision": precision}
        self._options["overlap"] = overlap
        self._jobs: dict[int, Job] = {}
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._next = 1
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def start(self, scene: Scene, model: Model) -> Job:
        """A job for this map: the one that is there already, or a new one at the queue's end.

        Raises:
            BusyError: too many wait.
        """
        with self._changed:
            for job in self._jobs.values():
                same = job.scene is scene and job.model.card == model.card
                wanted = not job.cancelled.is_set()  # one that is runs on to its next batch
                if same and wanted and job.state in ("waiting", "running", "done"):
                    return job
            if len(self._queue) >= self._most_waiting:
                raise BusyError(f"{len(self._queue)} maps wait already; come again", 30)
            job = Job(self._next, scene, model, self._folder / f"job-{self._next}")
            self._next += 1
            self._jobs[job.id] = job
            self._queue.append(job)
            self._changed.notify()
            ended = [job for job in self._jobs.values() if job.ended]
            for old in ended[: max(0, len(ended) - self._most_kept + 1)]:
                self._remove(old)
        return job

    def get(self, job_id: int) -> Job:
        """A job. Raises GoneError if there is none of this number, or none any more."""
        with self._changed:
            if job_id not in self._jobs:
                raise GoneError(f"job {job_id}: is not here any more; start it again")
            return self._jobs[job_id]

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        with self._changed:
            return list(self._jobs.values())

    def done(self, scene: Scene, model: Model) -> Job | None:
        """The job whose map of this scene by this model is finished."""
        with self._changed:
            for job in self._jobs.values():
                if job.scene is scene and job.model.card == model.card and job.state == "done":
                    return job
        return None

    def cancel(self, job_id: int) -> None:
        """Ends a job and removes it with its map. Raises GoneError as `get` does."""
        job = self.get(job_id)
        with self._changed:
            job.cancelled.set()
            if job in self._queue:
                self._queue.remove(job)
                job.state = "cancelled"
            if job.ended:
                self._remove(job)

    def forget(self, scene: Scene) -> None:
        """Ends and removes all jobs of a scene."""
        for job in self.all():
            if job.scene is scene:
                with contextlib.suppress(GoneError):
                    self.cancel(job.id)

    def close(self) -> None:
        """Ends the running job at its next batch, and the thread."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancelled.set()
            self._changed.notify()
        self._thread.join(timeout=2)

    def _remove(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._queue):
                    self._changed.wait()
                if self._closed:
                    return
                job = self._queue.popleft()
                job.state = "running"
            state = "failed"
            try:
                job.folder.mkdir()
                render_whole(
                    job.scene.spec,
                    job.target,
                    job.model,
                    self._generator,
                    job.progress,
                    **self._options,
                )
                job.map_bytes = job.target.stat().st_size
                state = "done"
            except Cancelled:
                state = "cancelled"
            except TilemapperError as error:
                job.error = job.scene.plain(str(error)).replace(str(job.target), "the map")
            except Exception as error:  # a defect, which must not end the thread
                job.error = f"{type(error).__name__}: {error}"
            if state == "failed":  # it may be that the disk was full
                shutil.rmtree(job.folder, ignore_errors=True)
            with self._changed:
                # After its last batch nothing asks any more whether somebody wants the map.
                job.state = "cancelled" if job.cancelled.is_set() else state
                if job.state == "cancelled":
                    self._remove(job)
