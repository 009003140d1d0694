"""``report.html`` of a training run, and of a sweep over several, from what run folders hold."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tilemapper.errors import ModelError
from tilemapper.extras import of_extra
from tilemapper.networks.efficientnet import Encoder
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.atomic import write_text_atomic
from tilemapper.raster.webp import Picture, encode_picture
from tilemapper.report.run_page import Layer, RunPage, run_page
from tilemapper.training.recording import METRICS_NAME, read_events
from tilemapper.training.runfolder import CONFIG_NAME

with of_extra("train"):
    from PIL import Image

PAGE_NAME = "report.html"
MOST_SAMPLES = 24
_SAMPLE = re.compile(r"step_\d+\.png")
SAMPLE_SIDE = 1024  # pixels, the longer one
# What Pillow's decoders raise on damage, and on a picture too large to be one of a run's.
_DAMAGE = (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError)


def write_run_page(folder: Path) -> Path:
    """Writes ``report.html`` into a run folder, which needs no other file, and returns it.

    Raises:
        DiskFullError, TargetError: it cannot be written.
    """
    try:
        model: Model | None = open_model(folder / "model")
    except ModelError:  # a run that has not ended yet
        model = None
    config = folder / CONFIG_NAME
    page = RunPage(
        name=f"Run {folder.resolve().name}",
        events=read_events(folder / METRICS_NAME),
        figures={} if model is None else model.card.metrics,
        samples=[(_step(path), picture) for path, picture in _pictures(_chosen(folder))],
        sheets=[
            (path.name, picture) for path, picture in _pictures(sorted(folder.glob("*sheet*.png")))
        ],
        layers=[]
        if model is None
        else layers_of(model.generator(), model.card.tile, model.card.bands),
        job=config.read_text(encoding="utf-8") if config.is_file() else "",
    )
    target = folder / PAGE_NAME
    write_text_atomic(target, run_page(page))
    return target


def write_sweep_page(folder: Path, runs: Sequence[tuple[str, Path, dict[str, float]]]) -> Path:
    """Writes ``report.html`` of a sweep: a table of its runs, and their curves together.

    Args:
        folder: where to.
        runs: settings, run folder and last figures of each.

    Raises:
        DiskFullError, TargetError: it cannot be written.
    """
    rows = [(name, figures, read_events(run / METRICS_NAME)) for name, run, figures in runs]
    target = folder / PAGE_NAME
    write_text_atomic(target, run_page(RunPage(name=f"Sweep {folder.resolve().name}", runs=rows)))
    return target


def layers_of(generator: nn.Module, tile: int, bands: int = 3) -> list[Layer]:
    """The parts of a generator in the order in which a tile passes them.

    Parts are the modules right below it, and those of its lists and of an encoder; without
    parameters and inside of others they are left out.
    """
    parts = {module: name for name, module in _parts_of(generator)}
    found: list[Layer] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        count = sum(parameter.numel() for parameter in module.parameters())
        shape = " x ".join(map(str, output.shape[1:])) if isinstance(output, torch.Tensor) else ""
        if count:
            found.append(Layer(parts[module], type(module).__name__, shape, count))

    hooks = [module.register_forward_hook(note) for module in parts]
    try:
        with torch.inference_mode():
            generator(torch.zeros(1, bands, tile, tile))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _parts_of(module: nn.Module, place: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        lists = isinstance(child, nn.ModuleList | Encoder)
        if lists or (not place and isinstance(child, nn.Sequential) and len(child)):
            yield from _parts_of(child, f"{place}{name}.")
        else:
            yield f"{place}{name}", child


def _chosen(folder: Path) -> list[Path]:
    """A run's samples by step, at most 24, spread evenly, first and last among them."""
    found = (folder / "samples").glob("step_*.png")
    paths = sorted((path for path in found if _SAMPLE.fullmatch(path.name)), key=_step)
    if len(paths) <= MOST_SAMPLES:
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, MOST_SAMPLES).round().astype(int)]


def _pictures(paths: Iterable[Path]) -> Iterator[tuple[Path, Picture]]:
    """Pictures of a run that has ended well: one that somebody damaged since is left out."""
    for path in paths:
        with contextlib.suppress(*_DAMAGE), Image.open(path) as image:
            image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
            yield path, encode_picture(np.asarray(image.convert("RGB")), quality=80)


def _step(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
