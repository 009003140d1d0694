"""The pairs of a run: opened, split, decoded, and the held-out ones set apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tilemapper.training.classes import ClassColours
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Group
from tilemapper.training.heldout import HeldOut, spread
from tilemapper.training.pairs import open_pairs, split_pairs
from tilemapper.training.pixels import Pixels, load_pixels
from tilemapper.training.sources import PairSource


class Dataset:
    """Training pixels, where the job wants them, and the held-out pairs.

    ``pixels`` are those of all training pairs, their targets marked classes (see `classes`) for a
    palette head; ``groups`` say which of them are drawn how often.
    Raises as `open_pairs`, `split_pairs` and `load_pixels`.
    """

    def __init__(self, job: TrainingJob, data: Path, folder: Path, device: torch.device) -> None:
        self.job, self.folder = job, folder
        config = job.data
        self.source = open_pairs(data, direction=config.direction, unpaired=config.unpaired)
        self.split = split_pairs(
            self.source,
            share=config.held_out,
            overlaps=_overlaps(job, data),
            seed=config.split_seed,
        )
        chosen = [(self.source, i) for i in self.split.train]
        self.groups = [Group(0, len(chosen), 1 - sum(e.share for e in config.extra))]
        for extra in config.extra:
            source = open_pairs(extra.path, direction=config.direction)
            self.groups.append(Group(len(chosen), len(source), extra.share))
            chosen += [(source, i) for i in range(len(source))]
        palette = job.networks.head == "palette"
        mark = ClassColours(job.palette, torch.device("cpu")).mark if palette else None
        self.pixels = self._load(chosen, storage=config.storage, device=device, make_target=mark)

    def held_out(self, paint: Callable[[Tensor], Tensor]) -> HeldOut | None:
        """The held-out pairs that are measured, evenly spread; None when none are held out."""
        indices = spread(self.split.held_out, self.job.trainer.evaluate_pairs)
        if not indices:
            return None
        chosen = [(self.source, i) for i in indices]
        pixels = self._load(chosen, storage="host", device=torch.device("cpu"))
        is_map = self.job.data.direction == "AtoB"
        return HeldOut(pixels, self.job.augment.crop, paint, is_map=is_map)

    def _load(
        self,
        pairs: list[tuple[PairSource, int]],
        *,
        storage: str,
        device: torch.device,
        make_target: Callable[[Tensor], Tensor] | None = None,
    ) -> Pixels:
        return load_pixels(
            pairs,
            resize=self.job.data.resize,
            crop=self.job.augment.crop,
            storage=storage,
            device=device,
            folder=self.folder,
            make_target=make_target,
        )


def _overlaps(job: TrainingJob, data: Path) -> Path | None:
    """The job's list of overlapping pairs, or one that lies in or beside the data."""
    if job.data.overlaps:
        return Path(job.data.overlaps)
    found = (folder / "overlaps.json" for folder in (data, data.parent))
    return next((path for path in found if path.is_file()), None)
