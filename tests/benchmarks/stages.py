"""Where a render's seconds go: every stage's time, measured inside its thread.

Threads' own CPU seconds do not count what others do on a busy machine, nor waiting; wall seconds
inside a stage do. A stage that calls another is not charged for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

# Where each stage's function is looked up by those who call it.
STAGES: dict[str, tuple[str, ...]] = {
    "read": ("tilemapper.raster.source:SourceView.read",),
    "cut": (
        "tilemapper.render.blocks:read_tile_rows",
        "tilemapper.render.cuda.source:SourceStrips.__iter__",
    ),
    "generator": ("tilemapper.render.engine:Engine.predict",),
    "device": (
        "tilemapper.render.cuda.block:_Path._take",
        "tilemapper.render.cuda.finished:Finished.rows",
    ),
    "blend": ("tilemapper.render.blocks:blend_rows",),
    "seam": ("tilemapper.render.seam:Seam.add",),
    "colours": ("tilemapper.render.blocks:to_layers",),
    "hash": ("tilemapper.render.blockfile:PixelHash.add",),
    "halve": ("tilemapper.raster.pyramid:halve",),
    "encode": (
        "tilemapper.raster.pyramid:encode_rows",
        "tilemapper.raster.pyramid:encode_mask",
    ),
    "stage": ("tilemapper.render.blocks:stage_block",),
    "finish": ("tilemapper.render.render:finish",),
    "finish: join": ("tilemapper.render.finish:join",),
    "finish: check": ("tilemapper.render.finish:_check",),
}


class Meter:
    """Seconds by stage; `times` has (CPU seconds, wall seconds, calls)."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        self._stacks = threading.local()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside is charged to this stage, but for the stages inside it."""
        stack = self._stacks.__dict__.setdefault("open", [])
        stack.append([0.0, 0.0])
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            spent = [time.thread_time() - cpu, time.perf_counter() - wall]
            inner = stack.pop()
            if stack:
                stack[-1] = [a + b for a, b in zip(stack[-1], spent, strict=True)]
            with self._lock:
                entry = self.times[name]
                entry[0] += spent[0] - inner[0]
                entry[1] += spent[1] - inner[1]
                entry[2] += 1

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls charged; of a generator, each of its steps."""
        if not inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                with self.stage(name):
                    return function(*args, **kwargs)

            return call

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = function(*args, **kwargs)
            while True:
                with self.stage(name):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item

        return steps


@contextlib.contextmanager
def measured() -> Iterator[Meter]:
    """Has every stage measured, for a while, in this process."""
    meter, before = Meter(), []
    try:
        for name, places in STAGES.items():
            for place in places:
                module, _, path = place.partition(":")
                owner: Any = importlib.import_module(module)
                *parents, last = path.split(".")
                for parent in parents:
                    owner = getattr(owner, parent)
                function = getattr(owner, last)
                before.append((owner, last, function))
                setattr(owner, last, meter.wrapped(name, function))
        yield meter
    finally:
        for owner, last, function in before:
            setattr(owner, last, function)


def table(meter: Meter, cpu_s: float, wall_s: float) -> str:
    """Stages as Markdown; ``cpu_s`` and ``wall_s`` of all that was measured together."""
    lines = ["| stage | CPU s | share of CPU | wall s inside |", "|---|---|---|---|"]
    rest = cpu_s
    for name in STAGES:
        if name in meter.times:
            cpu, wall, _ = meter.times[name]
            rest -= cpu
            lines.append(f"| {name} | {cpu:.2f} | {cpu / cpu_s:.1%} | {wall:.2f} |")
    lines.append(f"| everything else | {rest:.2f} | {rest / cpu_s:.1%} | |")
    lines.append(f"| all | {cpu_s:.2f} | 100 % | {wall_s:.2f} |")
    return "\n".join(lines)
