"""Batches of pairs for any step: chosen, cut, moved and brought to the device one step ahead."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tilemapper.training.agreement import EIGHTHS
from tilemapper.training.augment import (
    Draw,
    cut_patches,
    draw_batch,
    map_to_network,
    patch_indices,
    random_state,
    to_network,
)
from tilemapper.training.config import AugmentConfig
from tilemapper.training.pixels import Pixels
from tilemapper.training.turning import turn_image, turn_map


@dataclass(frozen=True)
class Batch:
    """One batch on the device.

    ``source``, ``target``: (n, 3, crop, crop) float32 in [-1, 1]; where the pixels' targets are
    classes, ``target`` is (n, crop, crop) uint8. ``tone``: (n, 8 to 10), the draw of the tone
    jitter, which the step applies itself. ``apart``: rows and columns by which each odd sample
    lies beyond the even one before it, None where they are not neighbours.
    """

    source: Tensor
    target: Tensor
    tone: Tensor
    apart: tuple[int, int] | None = None


@dataclass(frozen=True)
class Group:
    """``count`` consecutive pairs from ``first``, of which a share of all samples is drawn."""

    first: int
    count: int
    share: float


class Feed:
    """Gives the batch of any step; the next one is made by a thread meanwhile.

    The groups' shares sum to 1; the first group is gone through in shuffled epochs, the others
    are drawn at random. With ``unpaired`` the target is another pair's, moved by itself. With
    ``neighbours`` every two samples are patches that overlap. ``maps`` says which side keeps its
    colours where a patch is resized.
    ``waited_s`` adds up the time that a caller had to wait.
    """

    def __init__(
        self,
        pixels: Pixels,
        groups: Sequence[Group],
        augment: AugmentConfig,
        *,
        batch: int,
        seed: int,
        device: torch.device,
        unpaired: bool = False,
        neighbours: bool = False,
        maps: Literal["source", "target"] = "target",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pixels = pixels
        self.groups = list(groups)
        self.augment = augment
        self.batch = batch
        self.seed = seed
        self.device = device
        self.unpaired = unpaired
        self.neighbours = neighbours
        self.maps = maps
        self.rank = rank
        self.world = world
        self.waited_s = 0.0
        # Resident on an accelerator, gathering is queued there and needs no thread.
        self._ahead = None if pixels.source.is_cuda else ThreadPoolExecutor(1, "feed")
        self._next: tuple[int, Future[Batch]] | None = None
        self._epoch: tuple[tuple[int, str], Tensor] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of ``step``: the same one whenever it is asked for."""
        start = time.perf_counter()
        if self._ahead is None:
            batch = self.make(step)
        else:
            if self._next is None or self._next[0] != step:
                self._next = step, self._ahead.submit(self.make, step)
            batch = self._next[1].result()
            self._next = step + 1, self._ahead.submit(self.make, step + 1)
        self.waited_s += time.perf_counter() - start
        return batch

    def close(self) -> None:
        """Ends the thread."""
        if self._ahead is not None:
            self._ahead.shutdown(cancel_futures=True)

    def make(self, step: int) -> Batch:
        """Makes the batch of ``step`` in the calling thread."""
        draw = self._draw(step, "pair")
        other = self._draw(step, "unpaired target") if self.unpaired else draw
        source, target = self._cut(draw, self.pixels.source), self._cut(other, self.pixels.target)
        crop = self.augment.crop
        apart = draw.apart and (draw.apart[0] * crop // EIGHTHS, draw.apart[1] * crop // EIGHTHS)
        image, drawn = _image_to_network, _map_to_network
        if self.maps == "source":
            image, drawn = drawn, image
        return Batch(image(source, draw, crop), drawn(target, other, crop), draw.tone, apart)

    def choose(self, step: int, salt: str) -> Tensor:
        """Pair indices of all samples of a step, over all processes: (batch * world,) int64."""
        random = random_state(self.seed, salt, "extra", step)
        samples = self.batch * self.world
        n = samples // 2 if self.neighbours else samples
        first = self.groups[0]
        at = torch.arange(step * n, (step + 1) * n)
        epochs = at // first.count
        index = torch.empty(n, dtype=torch.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            index[here] = self._shuffled(epoch, salt)[at[here] % first.count]
        index += first.first
        threshold = first.share
        chance = torch.rand(n, generator=random)
        for group in self.groups[1:]:
            chosen = torch.randint(group.count, (n,), generator=random) + group.first
            index = torch.where((chance >= threshold), chosen, index)
            threshold += group.share
        return index.repeat_interleave(samples // n)

    def _draw(self, step: int, salt: str) -> Draw:
        random = random_state(self.seed, salt, "move", step)
        index = self.choose(step, salt)
        draw = draw_batch(
            self.augment,
            index,
            random,
            smallest=self.pixels.smallest,
            neighbours=self.neighbours,
        )
        return draw.part(self.rank, self.world)

    def _shuffled(self, epoch: int, salt: str) -> Tensor:
        if self._epoch is None or self._epoch[0] != (epoch, salt):
            random = random_state(self.seed, salt, "epoch", epoch)
            order = torch.randperm(self.groups[0].count, generator=random)
            self._epoch = (epoch, salt), order
        return self._epoch[1]

    def _cut(self, draw: Draw, pixels: Tensor) -> Tensor:
        """The patches of a draw, (n, side, side, ...) uint8 on the device that trains."""
        store, there = self.pixels, draw.to(pixels.device)
        where = (table[there.index] for table in (store.offset, store.height, store.width))
        if pixels.device.type != "cpu":
            index = patch_indices(there, *where)
            return pixels.index_select(0, index.flatten()).view(*index.shape, *pixels.shape[1:])
        patches = cut_patches(pixels, there, *where)
        if self.device.type == "cpu":
            return patches
        return patches.pin_memory().to(self.device, non_blocking=True)


def _image_to_network(patches: Tensor, draw: Draw, crop: int) -> Tensor:
    turned = turn_image(patches, draw.upright, draw.angle) if draw.angle else patches
    return to_network(turned, crop)


def _map_to_network(patches: Tensor, draw: Draw, crop: int) -> Tensor:
    turned = turn_map(patches, draw.upright, draw.angle) if draw.angle else patches
    return map_to_network(turned, crop)
