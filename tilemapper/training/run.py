"""`train`: from pairs and a job to a run folder with checkpoints, figures and a model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tilemapper import notebook
from tilemapper.errors import DeviceError, DiskFullError, device_fault, lacks_device_memory
from tilemapper.memory import kept_memory
from tilemapper.networks.renderable import PHASE
from tilemapper.training.assembly import choose_device, compiler_fault
from tilemapper.training.checkpoint import newest_step
from tilemapper.training.config import TrainingJob
from tilemapper.training.dataset import NOTABLY_FAR, Dataset
from tilemapper.training.export import export_model
from tilemapper.training.jobfile import read_job
from tilemapper.training.lossplot import write_loss_plot
from tilemapper.training.making import check_alone, make_trainer
from tilemapper.training.parallel import (
    Processes,
    any_of,
    join_processes,
    leave_processes,
    own_device,
)
from tilemapper.training.recording import Recorder
from tilemapper.training.runfolder import CHECKPOINTS_NAME, CONFIG_NAME, open_run, write_config
from tilemapper.training.task import Limits, Progress, Stopped
from tilemapper.training.trainer import Trainer


@dataclass(frozen=True)
class RunResult:
    """How a run ended. ``figures`` are the last held-out ones; ``model`` the exported folder.

    ``step`` is where the run goes on; ``stopped``: a stop was asked for, here or in another process
    of the run, and no model was made.
    """

    folder: Path
    step: int
    finished: bool
    figures: dict[str, float]
    model: Path | None
    stopped: bool = False

    def _repr_html_(self) -> str:
        how = "finished" if self.finished else "stopped, resume goes on"
        rows = [("run", f"{self.folder}: step {self.step}, {how}"), ("model", str(self.model))]
        rows += [(name, f"{value:.4g}") for name, value in self.figures.items()]
        return notebook.table(rows, caption="", head=False)


def train(
    data: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, str] | None = None,
    resume: bool = False,
    budget_minutes: float | None = None,
    device: str = "auto",
    command: str = "",
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
    notice: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """Trains a model on pairs and leaves a run folder.

    Args:
        data: pairs, as `open_pairs` takes them.
        out: the run folder: new or empty, or with ``resume`` one of an earlier call.
        preset: "classic", "fast", "best" or "cyclegan"; "fast" when there is no ``config``.
        config: a TOML job file over the preset; on resume the run's own is used.
        settings: ``section.key`` -> TOML value, over both.
        resume: go on where the run stopped.
        budget_minutes: leave cleanly after this time; also the length of the run where the job
            gives none.
        device: "auto", "cpu", "cuda" or "cuda:N".
        command: written into the model's card.
        stop: asked after each step, and while pairs are read, measured and the model is made;
            true leaves cleanly.
        progress: called after each step.
        notice: called with one-line notices.

    Raises:
        PairError: the pairs cannot be used.
        JobError: the job is not a valid one.
        OptionError: the budget is no time, or a setting or preset is unknown.
        TargetError: the folder has another run.
        TrainingError: a loss is not finite, or a checkpoint does not fit.
        DiskFullError: the disk is full; the last checkpoint is whole.
        DeviceError: the device is not there, its memory is too small, or nothing compiles for it.
    """
    folder = Path(out)
    chosen = choose_device(device)
    processes = join_processes(chosen)
    try:
        chosen = own_device(chosen, processes)
        held = open_run(folder, resume=resume) if processes.rank == 0 else contextlib.nullcontext()
        with held, kept_memory() if chosen.type == "cpu" else contextlib.nullcontext():
            job = read_job(
                folder,
                preset=preset,
                config=config,
                settings=settings,
                resume=resume,
                budget_minutes=budget_minutes,
            )
            check_alone(job, resume=resume)
            limits = Limits(None if budget_minutes is None else 60 * budget_minutes, stop)
            try:
                run = _Run(job, Path(data), folder, chosen, processes, notice, limits)
                trainer = run.trainer(resume=resume)
            except Stopped:
                any_of(True, processes)
                raise
            # All leave, or none: the others would fail where they wait for one that is gone.
            if any_of(False, processes):
                raise Stopped
            return run.train(trainer, limits, progress, command=command)
    except Stopped:  # while pairs were read
        step = newest_step(folder / CHECKPOINTS_NAME) if resume else 0
        return RunResult(folder, step, False, {}, None, stopped=True)
    except DiskFullError as error:
        if resume or not (folder / CONFIG_NAME).exists():
            raise
        raise DiskFullError(f"{error}, with --resume") from error
    except RuntimeError as error:
        fault = device_fault(error, str(chosen), "go on with --resume where a checkpoint stands")
        fault = fault or compiler_fault(error)
        if fault is None:
            raise
        if lacks_device_memory(error):
            fault = DeviceError(
                f"{chosen}: not enough memory for this job; free some, or take a smaller "
                "trainer.batch with --set (and --resume, where a checkpoint stands)"
            )
        raise fault from error
    finally:
        leave_processes(processes)


class _Run:
    """One call of `train`, put together in the order in which it needs things."""

    def __init__(
        self,
        job: TrainingJob,
        data: Path,
        folder: Path,
        device: torch.device,
        processes: Processes,
        notice: Callable[[str], None],
        limits: Limits,
    ) -> None:
        self.job, self.folder, self.device = job, folder, device
        self.processes, self.notice = processes, notice
        self.data = Dataset(job, data, folder, device, check=limits.check)
        if self.data.far_share > NOTABLY_FAR and processes.rank == 0:
            notice(
                f"{self.data.far_share:.0%} of the maps' pixels are near no colour of the palette "
                "and teach nothing; tilemapper pairs palette counts one"
            )
        if self.data.turned and processes.rank == 0:
            notice(
                f"{self.data.turned} images say that they are to be shown turned (EXIF), and are "
                "taken as they are stored, as render takes them; turn their pixels if the other "
                "images of their pairs were made so, tilemapper pairs check looks for those"
            )
        if job.augment.crop % PHASE and processes.rank == 0:
            notice(
                f"augment.crop is {job.augment.crop}, and rasters are rendered by models whose "
                f"tiles are a multiple of {PHASE} px; this one can be exported, and measured with "
                "evaluate --whole"
            )
        self.split = self.data.split
        unused = len(self.data.source) - len(self.split.train) - len(self.split.held_out)
        if unused and processes.rank == 0:
            notice(f"{unused} pairs overlap held-out ones, and are not learned from")
        self.steps = job.trainer.steps or math.ceil(
            job.trainer.epochs * len(self.split.train) / (job.trainer.batch * processes.world)
        )

    def train(
        self,
        trainer: Trainer,
        limits: Limits,
        progress: Callable[[Progress], None],
        *,
        command: str,
    ) -> RunResult:
        """Trains, then exports in the first process."""
        first = self.processes.rank == 0
        if first:
            write_config(self.folder, self.job)
        recorder = Recorder(self.folder, first_step=trainer.step) if first else None
        try:
            finished = trainer.run(recorder, limits, progress)
        finally:
            trainer.feed.close()
            if recorder:
                recorder.close()
        figures, model = dict[str, float](), None
        # After a signal there are seconds left, and the checkpoint is what matters.
        if first and not (trainer.stopped or limits.stop()):
            with contextlib.suppress(Stopped):
                figures, model = export_model(trainer, self.folder, self.split, command=command)
                write_loss_plot(self.folder)
        stopped = model is None and (trainer.stopped or limits.stop())
        return RunResult(self.folder, trainer.step, finished, figures, model, stopped)

    def trainer(self, *, resume: bool) -> Trainer:
        """What trains, see `make_trainer`."""
        return make_trainer(
            self.job,
            self.data,
            self.folder,
            self.device,
            self.processes,
            steps=self.steps,
            resume=resume,
            notice=self.notice,
        )
