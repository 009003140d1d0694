"""The pairs of a run: opened, split, decoded, and the held-out ones set apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tilemapper.errors import JobError, PairError
from tilemapper.training.classes import FAR, FARTHEST, ClassColours
from tilemapper.training.config import TrainingJob
from tilemapper.training.feed import Group
from tilemapper.training.heldout import HeldOut, spread
from tilemapper.training.legend import Legend, legend_of
from tilemapper.training.pairs import open_pairs, split_pairs
from tilemapper.training.pixels import Pixels, load_pixels
from tilemapper.training.sources import PairSource
from tilemapper.training.split import digest_pairs, digest_split, find_overlaps
from tilemapper.training.turning import side_to_cut

# Of the targets' pixels that are near no class: above the first a word is said, above the second
# the palette is another map's.
NOTABLY_FAR, MOST_FAR = 0.15, 0.5
FAR_SAMPLE = 1_000_000


class Dataset:
    """Training pixels, where the job wants them, and the held-out pairs.

    ``pixels`` are those of all training pairs, their targets marked classes (see `classes`) for a
    palette head; ``groups`` say which of them are drawn how often; ``legend`` is what maps are
    judged by, None for photographs; ``digest`` tells this split from others, ``learned_digests``
    tell each set that is learned from; ``far_share`` of the targets' pixels is not near any class;
    ``turned`` of the files are not taken as they say they are to be shown.
    ``check`` is called for each pair that is read, and may raise.
    Raises as `open_pairs`, `split_pairs` and `load_pixels`, and JobError when the job does not fit
    the pairs: they have no room for its rotation, or other colours than its palette.
    """

    def __init__(
        self,
        job: TrainingJob,
        data: Path,
        folder: Path,
        device: torch.device,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.job, self.folder, self.check = job, folder, check
        config = job.data
        self.legend = job_legend(job)
        self.source = open_pairs(data, direction=config.direction, unpaired=config.unpaired)
        self.split = split_pairs(
            self.source,
            share=config.held_out,
            overlaps=find_overlaps(data, config.overlaps),
            seed=config.split_seed,
        )
        if not self.split.train:
            raise PairError(
                f"{data}: held-out pairs only, others are needed to learn from; name the folder "
                "that train lies in beside val"
            )
        self.digest = digest_split(self.source, self.split)
        chosen = [(self.source, i) for i in self.split.train]
        held_out = {self.source.place(i) for i in self.split.held_out}
        self.groups = [Group(0, len(chosen), 1 - sum(e.share for e in config.extra))]
        self.learned_digests = [digest_pairs(self.source, self.split.train)]
        for extra in config.extra:
            source = open_pairs(extra.path, direction=config.direction, unpaired=config.unpaired)
            # All of them but a val folder: whoever made one measures on it.
            own = split_pairs(source, share=0).train
            if not own:
                raise PairError(
                    f"{extra.path}: held-out pairs only, others are needed; name their folder"
                )
            if held_out.intersection(map(source.place, own)):
                raise PairError(
                    f"{extra.path}: holds pairs that are held out, figures would be too good; take "
                    "it out of data.extra, or name a folder of others"
                )
            self.groups.append(Group(len(chosen), len(own), extra.share))
            chosen += [(source, i) for i in own]
            self.learned_digests.append(digest_pairs(source, own))
        palette = job.networks.head == "palette"
        mark = ClassColours(job.palette, torch.device("cpu")).mark if palette else None
        self.pixels = self._load(chosen, storage=config.storage, device=device, make_target=mark)
        self.turned = len(set[Path]().union(*(s.turned for s in {source for source, _ in chosen})))
        _check_room(job, self.pixels.smallest)
        self.far_share = _far_share(self.pixels.target) if palette else 0.0
        if self.far_share > MOST_FAR:
            raise JobError(
                f"{data}: {self.far_share:.0%} of the maps' pixels are more than {FARTHEST} levels "
                "from every colour of the palette, less than half is needed; count a palette with "
                "tilemapper pairs palette, or train with --set networks.head=rgb"
            )

    def held_out(self, paint: Callable[[Tensor], Tensor]) -> HeldOut | None:
        """The held-out pairs that are measured, evenly spread; None when none are held out."""
        indices = spread(self.split.held_out, self.job.trainer.evaluate_pairs)
        if not indices:
            return None
        chosen = [(self.source, i) for i in indices]
        pixels = self._load(chosen, storage="host", device=torch.device("cpu"))
        return HeldOut(pixels, self.job.augment.crop, paint, legend=self.legend)

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
            check=self.check,
        )


def job_legend(job: TrainingJob) -> Legend | None:
    """What the maps of a job are judged by; None where it paints photographs."""
    return legend_of(job.palette) if job.data.direction == "AtoB" else None


def _check_room(job: TrainingJob, smallest: int) -> None:
    """A patch that is turned is cut from a larger square, which every image must have."""
    augment = job.augment
    side = round(augment.crop * augment.scale[1])
    needed = side_to_cut(side, math.radians(augment.rotation))
    if augment.rotation and needed > smallest:
        raise JobError(
            f"augment.rotation = {augment.rotation:g}: the smallest image has {smallest} px, "
            f"{needed} px are needed to turn a patch of {side}; set it to 0, or cut larger pairs"
        )


def _far_share(marked: Tensor) -> float:
    """Share of marked pixels that are near no class, of a sample of them."""
    sample = marked[:: max(1, len(marked) // FAR_SAMPLE)]
    return float((sample >= FAR).float().mean())
