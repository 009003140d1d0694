"""The loop of a run: batch, step, and now and then figures, samples and a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from tilemapper.errors import TrainingError
from tilemapper.training.assembly import Average
from tilemapper.training.augment import random_state
from tilemapper.training.checkpoint import Checkpoints
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Feed
from tilemapper.training.heldout import HeldOut, write_png
from tilemapper.training.judge import Judge
from tilemapper.training.learnt import check_meaning, learnt, refusing_others, take_up
from tilemapper.training.parallel import Processes, any_of, from_first, mean_over
from tilemapper.training.recording import Recorder
from tilemapper.training.split import SplitDigest
from tilemapper.training.task import Limits, Progress, Task
from tilemapper.training.watch import LossWatch


class Trainer:
    """One run in one process: its state is all that a checkpoint holds.

    ``digest`` is that of the run's split: a checkpoint of another one is refused. ``learned_from``:
    the digests of all sets that the weights are of, those before this run and of earlier calls
    too. ``limits``: those of `run`; ``stopped``: a stop ended it, here or in another process.
    """

    def __init__(
        self,
        job: TrainingJob,
        task: Task,
        feed: Feed,
        *,
        steps: int,
        device: torch.device,
        processes: Processes,
        checkpoints: Checkpoints,
        held_out: HeldOut | None = None,
        digest: SplitDigest | None = None,
        learned_from: Sequence[str] = (),
    ) -> None:
        self.job = job
        self.task = task
        self.feed = feed
        self.steps = steps
        self.device = device
        self.processes = processes
        self.checkpoints = checkpoints
        self.held_out = held_out
        self.digest = digest
        self.learned_from = list(dict.fromkeys(learned_from))
        self.average = Average(task.generator, job.trainer.ema) if job.trainer.ema else None
        self.step = 0
        self.trained_s = 0.0
        self._began_s: float | None = None
        self.limits = Limits()
        self.stopped = False
        self._before_s = 0.0
        self.judge = Judge(held_out, job)
        self.watch = LossWatch(device)

    @property
    def judged(self) -> nn.Module:
        """The generator that is measured and exported: the averaged one where there is one."""
        return self.average.network if self.average else self.task.generator

    @property
    def is_best(self) -> bool:
        """Whether `judged` was measured as it is now, and no checkpoint holds anything better."""
        return self.judge.leads or self.judge.saved_here(self.step)

    def run(
        self,
        recorder: Recorder | None,
        limits: Limits,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> bool:
        """Trains until the run is done (True) or a limit is met (False), then saves.

        Only the first process has a recorder and writes.

        Raises:
            TrainingError: a loss is not finite; the last checkpoint stays as it was.
        """
        self._began_s = started = time.perf_counter()
        self.limits = limits
        left = False
        if self._is_measured_here():
            self._evaluate(recorder)  # where a stop broke that off, as it may once more
            left = any_of(limits.stop(), self.processes)
        while not left and (done := self._done()) < 1:
            self._one_step(done, progress)
            self._write_down(recorder)
            late = limits.budget_s is not None and time.perf_counter() - started > limits.budget_s
            left = any_of(late or limits.stop(), self.processes)
        self.stopped = any_of(limits.stop(), self.processes)
        self.watch.settle()
        if self.stopped or not self._evaluate(recorder, on_the_way=self.step < self.steps):
            self.save()
        return self._done() >= 1

    @property
    def elapsed_s(self) -> float:
        """Time in `run`, earlier calls up to the checkpoint included."""
        now = 0.0 if self._began_s is None else time.perf_counter() - self._began_s
        return self._before_s + now

    def _done(self) -> float:
        """Share of the run that is done; by the first process's clock where time is its length."""
        share = self._share()
        if self.steps:
            return share
        return float(from_first(torch.tensor([share], dtype=torch.float64), self.processes).item())

    def _share(self) -> float:
        """The same by this process's own clock."""
        if self.steps:
            return self.step / self.steps
        whole = self.job.trainer.minutes_of == "all"
        spent_s = self.elapsed_s if whole else self.trained_s
        return spent_s / (60 * self.job.trainer.minutes)

    def _one_step(self, done: float, progress: Callable[[Progress], None]) -> None:
        start = time.perf_counter()
        waited = self.feed.waited_s
        batch = self.feed(self.step)
        # Dropout and noise: drawn from the step's number, so that a resumed run draws the same.
        state = random_state(self.job.trainer.seed, "step", self.step, self.processes.rank)
        torch.manual_seed(state.initial_seed())
        losses = self.task.step(batch, self.step, done)
        if self.average:
            self.average.update(self.task.generator, self.step)
        self.step += 1
        self.watch.add(self.step, losses)
        took = time.perf_counter() - start
        self.trained_s += took
        images = self.job.trainer.batch * self.processes.world
        self.watch.pace(images, took, self.feed.waited_s - waited)
        now = min(self._share(), 1.0)
        progress(Progress(self.step, now, self.watch.latest, *self.watch.rates()))

    def _write_down(self, recorder: Recorder | None) -> None:
        config = self.job.trainer
        if self.step % config.log_every == 0:
            means = mean_over(self.watch.means(), self.processes)
            if recorder:
                speed, waiting = self.watch.rates()
                extra = {
                    "images_per_s": speed,
                    "waiting_share": waiting,
                    "minutes": self.trained_s / 60,
                }
                recorder.event("train", self.step, {**means, **extra})
            self.watch.forget()
        if self._is_measured_here():
            self._evaluate(recorder)
        if config.sample_every and self.step % config.sample_every == 0:
            self._sample(recorder)
        if config.checkpoint_every and self.step % config.checkpoint_every == 0:
            self.watch.settle()
            self.save()

    def _is_measured_here(self) -> bool:
        """Whether this step, taken already, is one after which the held-out pairs are measured."""
        every = self.job.trainer.evaluate_every
        return bool(every and self.step) and self.step % every == 0

    def _evaluate(self, recorder: Recorder | None, *, on_the_way: bool = False) -> bool:
        """Measures what this step has not; True where that found a best, and so wrote it."""
        if recorder is None:
            return False
        figures = self.judge.measure(self.judged, self.step, self.device, check=self.limits.check)
        self._leave_eval()
        if figures is None:
            return False
        recorder.event("held_out", self.step, figures)
        is_best = self.judge.weigh(figures, self.step, on_the_way=on_the_way)
        if is_best:
            self.watch.settle()
            self.save(best=True)
            self.judge.saved(self.step)
        return is_best

    def _sample(self, recorder: Recorder | None) -> None:
        if recorder is None or not self.held_out:
            return
        count = self.job.trainer.sample_pairs
        made = self.held_out.generate(self.judged, self.device, count=count)
        self._leave_eval()
        sheet = self.held_out.sheet(made)
        write_png(self.checkpoints.folder.parent / "samples" / f"step_{self.step}.png", sheet)
        recorder.image("samples", self.step, sheet)

    def _leave_eval(self) -> None:
        # Without an average the judged network is the one that learns.
        self.task.generator.train()

    def save(self, *, best: bool = False) -> None:
        """Writes a checkpoint of this step, in the first process.

        Raises:
            TrainingError: a weight is not finite; the last checkpoint stays.
        """
        if self.processes.rank:
            return
        for name, module in self.task.modules.items():
            if not all(bool(t.isfinite().all()) for t in module.state_dict().values()):
                raise TrainingError(
                    f"step {self.step}: weights of the {name} are not finite; the last good "
                    "checkpoint stays, lower trainer.learning_rate and --resume"
                )
        self.checkpoints.save(self.state(), step=self.step, best=best)

    def state(self) -> dict[str, Any]:
        """All that resuming needs, as plain data and tensors."""
        return {
            "job": self.job.model_dump_json(),
            "step": self.step,
            "trained_s": self.trained_s,
            "elapsed_s": self.elapsed_s,
            **self.judge.state(),
            "split": asdict(self.digest) if self.digest else None,
            "learned_from": self.learned_from,
            **learnt(self.task, self.average),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a state where it was left.

        Raises:
            TrainingError: it is of other pairs, of another split, or of other networks.
        """
        if self.digest:
            self.digest.check(state.get("split"))
        with refusing_others():
            take_up(state, self.task, self.average)
            check_meaning(state, self.job)
            self.step, self.trained_s = int(state["step"]), float(state["trained_s"])
            self._before_s = float(state.get("elapsed_s", self.trained_s))  # older ones lack it
            self.judge.load(state)
            before = state.get("learned_from", ())  # older ones lack it
            self.learned_from = list(dict.fromkeys([*self.learned_from, *before]))
