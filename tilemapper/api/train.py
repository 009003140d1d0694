"""`train`: a training run with the options of the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tilemapper.api.run_page import write_run_page
from tilemapper.extras import check_extra
from tilemapper.training.jobtext import toml_value
from tilemapper.training.run import RunResult
from tilemapper.training.run import train as train_run
from tilemapper.training.task import Progress


def train(
    data: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    direction: str | None = None,
    settings: Mapping[str, object] | None = None,
    resume: bool = False,
    budget_minutes: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
    notice: Callable[[str], None] = print,
) -> RunResult:
    """Trains a model on pairs and leaves a run folder with checkpoints, figures and the model.

    Args:
        data: pairs: a folder of side-by-side images, one with folders A and B, or a .npz file.
        out: the run folder: new or empty, or with ``resume`` one of an earlier call.
        preset: "classic", "fast", "best" or "cyclegan"; "fast" when there is no ``config``.
        config: a TOML job file over the preset; on resume the run's own is used.
        direction: AtoB or BtoA; A is the left half or folder A.
        settings: ``section.key`` -> value, over preset and config; the command's ``--set``.
        resume: go on where the run stopped.
        budget_minutes: leave cleanly after this time; also the length of the run where the job
            gives none.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: on a CPU; all cores by default.
        seed: of weights, order and augmentation.
        stop: asked after each step, and while pairs are read, measured and the model is made;
            true leaves cleanly.
        progress: called after each step.
        notice: called with one-line notices.

    Raises:
        PairError, JobError, TargetError, TrainingError, OptionError: as they are named.
    """
    check_extra("train", "matplotlib", "tensorboard")
    chosen = {
        key: value if isinstance(value, str) else toml_value(value)
        for key, value in (settings or {}).items()
    }
    if direction is not None:
        chosen["data.direction"] = direction
    if seed is not None:
        chosen["trainer.seed"] = str(seed)
    if threads:
        torch.set_num_threads(threads)
    given = {"preset": preset, "config": config and str(config), "settings": chosen or None}
    words = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    return train_and_report(
        data,
        out,
        preset=preset,
        config=config,
        settings=chosen,
        resume=resume,
        budget_minutes=budget_minutes,
        device=device,
        command=f"tilemapper.train({', '.join([repr(str(data)), repr(str(out)), *words])})",
        stop=stop,
        progress=progress,
        notice=notice,
    )


def train_and_report(data: str | Path, out: str | Path, **options: Any) -> RunResult:
    """`tilemapper.training.run.train` with its options, and ``report.html`` in the run folder."""
    result = train_run(data, out, **options)
    if result.model is not None:
        write_run_page(result.folder)
    return result
