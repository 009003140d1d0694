"""``report.html`` of a training run, and of a sweep over several, from what run folders hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tilemapper.errors import ModelError
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.atomic import write_text_atomic
from tilemapper.raster.webp import Picture, encode_picture
from tilemapper.report.run_page import Layer, RunPage, run_page
from tilemapper.training.recording import METRICS_NAME, read_events
from tilemapper.training.runfolder import CONFIG_NAME

PAGE_NAME = "report.html"
MOST_SAMPLES = 24
SAMPLE_SIDE = 1024  # pixels, the longer one


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
        samples=[(_step(path), _picture(path)) for path in _chosen(folder / "samples")],
        sheets=[(path.name, _picture(path)) for path in sorted(folder.glob("*sheet*.png"))],
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

    Parts are the modules right below it, and those of its lists; without parameters and inside of
    others they are left out.
    """
    parts: dict[nn.Module, str] = {}
    for name, module in generator.named_children():
        inside = (
            module.named_children() if isinstance(module, nn.ModuleList | nn.Sequential) else ()
        )
        for part, child in list(inside) or [("", module)]:
            parts[child] = f"{name}.{part}".rstrip(".")
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


def _chosen(folder: Path) -> list[Path]:
    """The samples by step, at most 24 of them, spread evenly, first and last among them."""
    paths = sorted(folder.glob("step_*.png"), key=_step)
    if len(paths) <= MOST_SAMPLES:
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, MOST_SAMPLES).round().astype(int)]


def _picture(path: Path) -> Picture:
    with Image.open(path) as image:
        image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        return encode_picture(np.asarray(image.convert("RGB")), quality=80)


def _step(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
