"""Ways for a dask worker to die, loaded into it as a preload; the tests' side is `Deaths`.

A worker that finds a death in the folder takes it, by one rename, and dies of it at its moment. So
a run whose folder holds twelve deaths loses twelve workers, each at a chosen point:

    start   before the worker is anything
    soon    some time after the process began, mostly before it is up
    begin   as a block begins
    tick    in the middle of a block
    after   when a block stands and nobody knows of it yet
    answer  with the answer on its way
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

FOLDER = "TILEMAPPER_TEST_DEATHS"
ROOT = Path(__file__).parents[2]
MOMENTS = ("start", "soon", "begin", "tick", "after", "answer")


def _segfault() -> None:
    ctypes.string_at(0)


def _hold() -> None:
    ctypes.PyDLL(None).sleep(100_000)  # keeps the interpreter's lock: no heartbeat either


WAYS: dict[str, Callable[[], Any]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": _segfault,
    "abort": os.abort,
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "exit": lambda: sys.exit(3),  # an exception to dask
    "os-exit": lambda: os._exit(4),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(100_000),  # one thread hangs, the worker's heart beats on
    "hold": _hold,
}
HANGS = {"stop", "sleep", "hold"}


@dataclass(frozen=True)
class Death:
    """One death. count: the how-manieth moment of its kind in the process; ``soon``: 1/100 s."""

    number: int
    way: str
    moment: str
    count: int

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.number:03}-{self.way}-{self.moment}-{self.count}"

    @classmethod
    def named(cls, name: str) -> Death:
        """The death of a file's name."""
        number, rest = name.split("-", 1)
        way, moment, count = rest.rsplit("-", 2)
        return cls(int(number), way, moment, int(count))


def deaths(seed: int, count: int, *, hangs: int, moments: tuple[str, ...] = MOMENTS) -> list[Death]:
    """As many deaths of all ways and moments, ``hangs`` of them hangs, in random order."""
    chance = random.Random(seed)
    sudden = [way for way in WAYS if way not in HANGS]
    ways = [sudden[index % len(sudden)] for index in range(count - hangs)]
    ways += [sorted(HANGS)[index % len(HANGS)] for index in range(hangs)]
    chance.shuffle(ways)
    found = []
    for number, way in enumerate(ways):
        # A thread of its own can neither leave the process by an exception nor hang it by sleeping.
        aside = {"soon", "answer"} if way in ("exit", "sleep") else set()
        moment = chance.choice([moment for moment in moments if moment not in aside])
        late = {"start": 1, "soon": chance.randint(0, 400), "tick": chance.randint(1, 25)}
        found.append(Death(number, way, moment, late.get(moment, chance.randint(1, 3))))
    return found


class Deaths:
    """A folder of deaths to come. died: process ids by the names of the deaths they died."""

    def __init__(self, folder: Path, coming: list[Death]) -> None:
        self.folder = folder
        folder.mkdir()
        for death in coming:
            (folder / death.name).touch()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a client, or for a cluster's workers, that make them die."""
        return {
            **os.environ,
            FOLDER: str(self.folder),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([__name__]),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def died(self) -> dict[str, int]:
        """Deaths that were died, and the processes that did."""
        return {path.stem: int(path.suffix[1:]) for path in self.folder.glob("[0-9]*.*")}

    def bury(self) -> None:
        """Kills the hanging workers, as whoever looks after a cluster would."""
        for name, pid in self.died.items():
            if Death.named(name).way in HANGS:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def alive(self) -> list[psutil.Process]:
        """All processes that were started with this folder in their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if not zombie and process.environ().get(FOLDER) == str(self.folder):
                    found.append(process)
        return found


@contextlib.contextmanager
def nobody_left(dead: Deaths, within_s: float = 5.0) -> Iterator[None]:
    """Afterwards no process of the folder's environment is left, within some seconds."""
    yield
    deadline = time.monotonic() + within_s
    while (left := dead.alive()) and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = [f"{process.pid} {process.status()} {process.cmdline()}" for process in left]
    for process in left:
        process.kill()
    assert not lines, lines


class _Fate:
    """The death that this worker will die, and the moments that it has lived through."""

    def __init__(self, death: Death, claimed: Path) -> None:
        self._death, self._claimed, self._seen = death, claimed, 0

    def at(self, moment: str) -> None:
        """The moment has come once more."""
        if moment != self._death.moment:
            return
        self._seen += 1
        if self._seen == self._death.count:
            self.die()

    def die(self) -> None:
        """The file is renamed before: whoever counts sees only deaths that were died."""
        self._claimed.rename(self._claimed.parent / f"{self._death.name}.{os.getpid()}")
        WAYS[self._death.way]()

    def lurk(self) -> None:
        """Those that come by the clock, and not by the work."""
        if self._death.moment == "soon":
            _later(self._death.count / 100, self.die)

    def answer(self) -> None:
        """Once the answer is out of this thread's hands."""
        _later(random.uniform(0.0, 0.02), lambda: self.at("answer"))


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def _claim() -> _Fate | None:
    folder = Path(os.environ[FOLDER])
    for path in sorted(folder.iterdir()):
        if path.suffix or path.name.startswith("."):
            continue
        claimed = path.with_name(f".{path.name}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(claimed)
            return _Fate(Death.named(path.name), claimed)
    return None


_FATE = _claim() if FOLDER in os.environ else None
if _FATE is not None:
    _FATE.at("start")
    _FATE.lurk()


def dask_setup(_worker: Any) -> None:
    """Called by dask in the worker: puts the moments into its work."""
    fate = _FATE
    if fate is None:
        return
    from tilemapper.render import blocks, desk
    from tilemapper.render.cluster import tasks

    real_block, real_here = blocks.render_block, tasks.render_here

    def block(plan: Any, block: Any, view: Any, engine: Any, folder: Any, tick: Any = None) -> Any:
        fate.at("begin")

        def ticking(tiles: int) -> None:
            fate.at("tick")
            if tick is not None:
                tick(tiles)

        receipt = real_block(plan, block, view, engine, folder, ticking)
        fate.at("after")
        return receipt

    def here(*arguments: Any, **options: Any) -> Any:
        answer = real_here(*arguments, **options)
        fate.answer()
        return answer

    blocks.render_block = desk.render_block = block
    tasks.render_here = here
