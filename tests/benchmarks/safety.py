"""What safety costs: the same render with all that guards it, and with it switched off.

    python tests/benchmarks/safety.py
    python tests/benchmarks/safety.py --width 32 --size 4096 --pairs 9

Switched off, in this process alone: fsync of files, folders and journal; checksums of staged and
joined bytes and of pixels; decoding each file block again after it was encoded; reading staged and
joined files back; the journal; and the copy from the staged blocks to the joined file, whose time
is taken off (without staging it would not be made). Pairs of runs, with and without in turn,
in one process on one thread of torch; medians of the wall and processor seconds of each run.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from tilemapper.networks.build import build_generator
from tilemapper.networks.model import Model, ModelCard, open_model, save_model
from tilemapper.raster import deflate
from tilemapper.render import blockfile, finish, joining, places
from tilemapper.render.blocks import engine_of
from tilemapper.render.render import render
from tilemapper.render.staging import Staging


class _Nothing:
    """Stands in for a checksum: takes everything, says the same of all, and equals all."""

    crc32 = 0

    def __init__(self, *_data: Any) -> None: ...

    def update(self, _data: Any) -> None: ...

    def hexdigest(self) -> Any:
        return self

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class _Writer(_Nothing):
    """A joined file without its checksum."""

    def __init__(self, file: Any) -> None:
        self.write = file.write


class Stopwatch:
    """Wall and processor seconds spent in a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.wall_s, self.processor_s = function, 0.0, 0.0

    def __call__(self, *args: Any, **named: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        try:
            return self._function(*args, **named)
        finally:
            self.wall_s += time.perf_counter() - wall
            self.processor_s += time.process_time() - processor


@contextlib.contextmanager
def unguarded() -> Iterator[Stopwatch]:
    """Switches safety off; yields what measures the copy from staged blocks to the joined file."""
    copying = Stopwatch(joining._copy_level)

    def undecoded(data: bytes, level: int, *, flat: bool) -> bytes:
        with mock.patch.object(deflate.isal_zlib, "decompress", lambda _stream, bufsize: data):
            return encode(data, level, flat=flat)

    encode = deflate._deflate
    with contextlib.ExitStack() as patches:
        for place, name, instead in (
            (os, "fsync", lambda _descriptor: None),
            (blockfile, "file_sha256", lambda _path: _Nothing()),
            (blockfile.PixelHash, "add", lambda _self, _pixels, _keep: None),
            (blockfile, "hashlib", SimpleNamespace(sha256=_NothingText)),
            (deflate, "_deflate", undecoded),
            (joining, "Summed", _Writer),
            (places, "_small", _unchecked),
            (joining, "_copy_level", copying),
            (finish, "_check", lambda *_arguments: None),
            (Staging, "append", lambda self, receipt: self.done.update({receipt.block: receipt})),
        ):
            patches.enter_context(mock.patch.object(place, name, instead))
        yield copying


class _NothingText(_Nothing):
    def hexdigest(self) -> str:
        return ""


def _unchecked(staging: Staging, layer: Any, block: Any, suffix: str) -> bytes:
    return (staging.blocks / block.name / f"{layer.name}.{suffix}").read_bytes()


def timed(source: Path, target: Path, model: Model, engine: Any) -> tuple[float, float]:
    """Wall and processor seconds of one render."""
    target.unlink(missing_ok=True)
    wall, processor = time.perf_counter(), time.process_time()
    render(source, target, model, engine=engine, gsd="native", device="cpu")
    return time.perf_counter() - wall, time.process_time() - processor


def made_model(folder: Path, width: int) -> Model:
    """A U-Net as initialised, its weights scaled until it paints a picture."""
    card = ModelCard(name="unet", architecture="unet", arguments={"width": width}, head="rgb")
    torch.manual_seed(0)
    generator = build_generator("unet", {"width": width}, card.channels, card.head)
    for parameter in generator.parameters():
        if parameter.dim() == 4:
            parameter.data *= 12
    save_model(folder, card, generator, "# unet\n")
    return open_model(folder)


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32, help="of a U-Net-256")
    parser.add_argument("--model", help="a trained model instead, by name or folder")
    parser.add_argument("--size", type=int, default=2048, help="of the sample city")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write; the default is the system's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source, target = folder / "city.tif", folder / "map.tif"
        command = [sys.executable, "-m", "tilemapper", "sample", str(source)]
        subprocess.run([*command, "--size", str(arguments.size)], check=True)
        model = (
            open_model(arguments.model)
            if arguments.model
            else made_model(folder / "unet", arguments.width)
        )
        plans: list[Any] = []
        render(
            source, target, model, gsd="native", device="cpu", on_plan=lambda p, _: plans.append(p)
        )
        engine = engine_of(plans[0], model)
        whole = target.read_bytes()
        timed(source, target, model, engine)  # warm-up
        guarded, bare = [], []
        for _ in range(arguments.pairs):
            guarded.append(timed(source, target, model, engine))
            assert target.read_bytes() == whole
            with unguarded() as copying:
                wall, processor = timed(source, target, model, engine)
            assert target.read_bytes() == whole  # what was switched off does not decide the bytes
            bare.append((wall - copying.wall_s, processor - copying.processor_s))
    print_table(arguments, plans[0], guarded, bare, len(whole))


def print_table(
    arguments: argparse.Namespace, plan: Any, guarded: list[Any], bare: list[Any], size: int
) -> None:
    """Medians with their spread, and the share of safety from pair to pair."""
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    named = arguments.model or f"U-Net-256, width {arguments.width}"
    print(
        f"{day}: {named}, {plan.precision}, {arguments.size} x {arguments.size} px, "
        f"{len(plan.blocks)} block(s), output {size / 1e6:.1f} MB, {arguments.pairs} pairs, one "
        f"thread; Python {platform.python_version()}, torch {torch.__version__}, load {load}\n"
    )
    print("| seconds | guarded | bare | safety, median of pairs | lowest | highest |")
    print("|---|---:|---:|---:|---:|---:|")
    for index, kind in enumerate(("wall", "processor")):
        shares = sorted(a[index] / b[index] - 1 for a, b in zip(guarded, bare, strict=True))
        print(
            f"| {kind} | {statistics.median(a[index] for a in guarded):.2f} "
            f"| {statistics.median(b[index] for b in bare):.2f} "
            f"| {statistics.median(shares):.1%} | {shares[0]:.1%} | {shares[-1]:.1%} |"
        )


if __name__ == "__main__":
    main()
