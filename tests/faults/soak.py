"""Small scenes under random faults, for an hour, in one process that must not grow.

    python -m tests.faults.soak FOLDER --minutes 60 --models FOLDER --server URL

with the shim in LD_PRELOAD. Prints one JSON object a sample: how much was done, and what the
process holds: memory, file descriptors, threads, children, files in temporary folders.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import mmap
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from tests.archive.world import write_job
from tests.faults import injection
from tests.faults.driver import REPORT
from tests.faults.injection import Fault
from tests.faults.oracle import remove_tree, sha256, write_source
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.run import run_archive
from tilemapper.errors import Interrupted, TilemapperError
from tilemapper.networks.model import Model, open_model
from tilemapper.render.engine import Engine
from tilemapper.render.render import render

# Height, width, masked, model.
SCENES = (
    (300, 420, False, "identity"),
    (560, 600, True, "identity"),
    (257, 1000, True, "classes"),
    (40, 40, False, "unet"),
)
FAULTS = (
    injection.DISK_FULL,
    injection.DISK_FULL_ONCE,
    injection.QUOTA,
    injection.DISK_ERROR,
    injection.DISK_DEAD,
    injection.SHORT_WRITE,
    injection.SHORT_THEN_FULL,
    injection.NOT_REMOVED,
    injection.NOT_READ,
    injection.SHORT_READ,
    injection.BIT_FLIPPED,
)
MODES = ("good", "flaky", "short", "cut", "garbage", "html", "gone", "plain")
SAMPLE_S = 10.0
MOST_POINTS = 80


class Shim:
    """The preloaded shim, armed for one call at a time."""

    def __init__(self) -> None:
        self._calls = ctypes.CDLL(os.environ.pop("LD_PRELOAD"))
        self._page = mmap.mmap(-1, 4096)

    def arm(self, fault: Fault, folder: Path) -> None:
        """From now on calls in the folder are counted, and the nth fails."""
        self._page[: REPORT.size] = bytes(REPORT.size)
        page = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._calls.fault_arm(
            str(folder).encode(),
            int(fault.kinds),
            ctypes.c_long(fault.nth),
            fault.action,
            fault.error,
            ctypes.c_void_p(page),
        )

    def disarm(self) -> bool:
        """No call is touched any more; whether one was."""
        self._calls.fault_disarm()
        return bool(REPORT.unpack(self._page[: REPORT.size])[1])


@dataclass
class Scene:
    """A source, its target, the model on its device, and what is right."""

    source: Path
    target: Path
    model: Model
    engine: Engine
    wanted: str | None = None

    def render(self, source: str | Path | None = None, **options: Any) -> None:
        """Renders it, at the block size that gives the larger ones a few blocks."""
        render(
            source or self.source, self.target, self.model, overwrite=True, gsd="native",
            block=512, batch_size=4, device="cpu", engine=self.engine, **options,
        )  # fmt: skip


@dataclass
class Soak:
    """One long run. folder: all that it writes lies in there, temporary files of others too."""

    folder: Path
    models: Path
    server: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.shim = Shim()
        self.begun = time.monotonic()
        self.said = 0.0
        (self.folder / "sources").mkdir()
        (self.folder / "out").mkdir()
        self.scenes = [self._scene(index, *values) for index, values in enumerate(SCENES)]
        shutil.copytree(self.folder / "sources", self.folder / "archive" / "in")
        path = write_job(
            self.folder / "archive",
            self.models / "identity",
            render='batch_size = 4\ngsd = "native"',
        )
        self.job = load_job(path)
        self.archive_model = open_model(self.job.render.model)
        run_archive(self.job, self.archive_model)
        self.archived = self._archived()
        assert len(self.archived) == len(SCENES)

    def _scene(self, index: int, height: int, width: int, masked: bool, name: str) -> Scene:
        source = self.folder / "sources" / f"city_{index}.tif"
        write_source(source, height, width, masked=masked)
        model = open_model(self.models / name)
        engine = Engine(model, device="cpu", precision="fp32", batch_size=4)
        scene = Scene(source, self.folder / "out" / f"map_{index}.tif", model, engine)
        scene.render(precision="fp32")
        scene.wanted = sha256(scene.target)
        return scene

    def _archived(self) -> dict[str, str | None]:
        return {path.name: sha256(path) for path in sorted(self.job.root.rglob("*_map.tif"))}

    def run(self, seconds: float) -> None:
        """Rounds until the time is up; a sample now and then, and one at the end."""
        rounds = (self.disk, self.disk, self.source, self.stop, self.web, self.archive)
        while (now := time.monotonic() - self.begun) < seconds:
            if now - self.said > SAMPLE_S:
                self.said = now
                self.sample()
            self.chance.choice(rounds)()
            self.counts["rounds"] += 1
        self.sample()

    def attempt(
        self, kind: str, scene: Scene, source: str | Path | None = None, **more: Any
    ) -> bool:
        """A render that may fail, in one of our own errors; whether it ended well."""
        try:
            scene.render(source, precision="fp32", **more)
        except TilemapperError as error:
            assert "\n" not in str(error), error
            self.counts[f"{kind}: {type(error).__name__}"] += 1
            return False
        except Interrupted:
            self.counts[f"{kind}: Interrupted"] += 1
            return False
        self.counts[f"{kind}: well"] += 1
        return True

    def check(self, scene: Scene) -> None:
        """What stands under the name is the whole right map."""
        self.counts["checked"] += 1
        assert sha256(scene.target) == scene.wanted, scene.target

    def settle(self, scene: Scene) -> None:
        """The same render undisturbed: right, and nothing is left beside it."""
        scene.render(precision="fp32")
        self.check(scene)
        left = {path.name for path in self.folder.joinpath("out").iterdir()}
        assert left == {s.target.name for s in self.scenes}, left

    def fault(self) -> Fault:
        """Some fault at some call."""
        fault = self.chance.choice(FAULTS)
        return replace(fault, nth=self.chance.randint(1, MOST_POINTS))

    def disk(self) -> None:
        """A call of the system that fails."""
        scene = self.chance.choice(self.scenes)
        self.shim.arm(self.fault(), self.folder / "out")
        try:
            well = self.attempt("disk", scene)
        finally:
            self.counts["calls failed"] += self.shim.disarm()
        if well:
            self.check(scene)
        self.settle(scene)

    def source(self) -> None:
        """A source that is damaged before, or taken away or changed meanwhile."""
        scene = self.chance.choice(self.scenes)
        whole, status = scene.source.read_bytes(), scene.source.stat()
        how = self.chance.choice(("cut", "noise", "removed", "emptied"))
        damaged = bytearray(whole)
        if how == "cut":
            del damaged[self.chance.randrange(len(whole)) :]
        elif how == "noise":
            place = self.chance.randrange(len(whole))
            damaged[place : place + 64] = self.chance.randbytes(len(damaged[place : place + 64]))
        scene.source.write_bytes(damaged)

        def meanwhile(_tiles: int) -> None:
            if how == "removed":
                scene.source.unlink(missing_ok=True)
            elif how == "emptied":
                os.truncate(scene.source, 0)

        self.attempt(f"source {how}", scene, tick=meanwhile, restart=True)
        scene.source.write_bytes(whole)
        # The map says of which source it is, time included.
        os.utime(scene.source, ns=(status.st_atime_ns, status.st_mtime_ns))
        scene.render(precision="fp32", restart=True)
        self.settle(scene)

    def stop(self) -> None:
        """A signal in the middle."""
        scene = self.chance.choice(self.scenes)
        left = self.chance.randint(1, 6)

        def ticked(_tiles: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Interrupted(15)

        if self.attempt("signal", scene, tick=ticked):
            self.check(scene)
        self.settle(scene)

    def web(self) -> None:
        """A source on a server that misbehaves."""
        scene, mode = self.chance.choice(self.scenes), self.chance.choice(MODES)
        number = self.counts["rounds"]
        url = f"{self.server}/{mode}/{number}/{scene.source.name}"
        self.attempt(f"web {mode}", scene, url, restart=True)
        scene.render(precision="fp32", restart=True)
        self.settle(scene)

    def archive(self) -> None:
        """A run of an archive under a fault, then as many as it takes to finish it."""
        for path in list(self.job.root.rglob("*_map.tif")):
            if self.chance.random() < 0.5:
                path.unlink()
        self.shim.arm(self.fault(), self.folder / "archive" / "out")
        try:
            summary = run_archive(self.job, self.archive_model)
            self.counts[f"archive: {'stopped' if summary.stopped else 'ended'}"] += 1
        except TilemapperError as error:
            self.counts[f"archive: {type(error).__name__}"] += 1
        finally:
            self.counts["calls failed"] += self.shim.disarm()
        summary = run_archive(self.job, self.archive_model, retry_failed=True)
        assert self._archived() == self.archived, summary
        self.counts["checked"] += len(self.archived)

    def sample(self) -> None:
        """One line: what was done, and what is held."""
        gc.collect()
        own = psutil.Process()
        temporary = [path for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()]
        staged = [path for path in self.job.work.rglob("*") if path.is_file()]
        print(
            json.dumps({
                "seconds": round(time.monotonic() - self.begun, 1),
                "rss_mib": round(own.memory_info().rss / 2**20, 1),
                "descriptors": own.num_fds(),
                "open": kinds_open(),
                "threads": own.num_threads(),
                "children": len(own.children(recursive=True)),
                "temporary": len(temporary),
                "work": len(staged),
                "ledger_kib": sum(p.stat().st_size for p in staged if "ledger" in p.name) // 1024,
                **self.counts,
            }),
            flush=True,
        )  # fmt: skip


def kinds_open() -> dict[str, int]:
    """What the file descriptors are of: sockets by their state, files by their name."""
    states = {c.fd: f"socket {c.status} {c.raddr[1:]}" for c in psutil.Process().net_connections()}
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # it was the one that listed this folder
            held = entry.readlink()
            found[states.get(int(entry.name)) or held.name.partition("[")[0]] += 1
    return dict(found.most_common(8))


def main() -> None:
    """The command."""
    asked = argparse.ArgumentParser(description="Renders under random faults.")
    asked.add_argument("folder", type=Path)
    asked.add_argument("--minutes", type=float, default=60)
    asked.add_argument("--models", type=Path, required=True)
    asked.add_argument("--server", required=True, help="its folder is FOLDER/sources")
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    temporary = given.folder / "tmp"
    remove_tree(temporary)
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    soak = Soak(given.folder, given.models, given.server, given.seed)
    soak.run(60 * given.minutes)


if __name__ == "__main__":
    main()
