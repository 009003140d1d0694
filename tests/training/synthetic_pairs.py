"""Pairs made by the tests: coloured rectangles as the map, darkened and noisy as the imagery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

# The networks of the tests are too small for two threads to share; waiting for one another costs
# more than it brings, above all on a busy machine.
torch.set_num_threads(1)

LAND, BUILDING, WATER, ROAD = (232, 228, 224), (244, 240, 236), (177, 209, 255), (255, 255, 255)
COLOURS = (LAND, BUILDING, WATER, ROAD)
# A job that a CPU trains in a moment: writing a tensor costs more than training it, so the network
# has one residual block. The tests say what they change.
TINY = {
    "augment.crop": "32",
    "networks.generator": "residual",
    "networks.generator_arguments": "{width=4, first_blocks=0, blocks=0, bottom_blocks=1, "
    "up_blocks=0}",
    "networks.discriminator_arguments": "{width=4, n_layers=1}",
    "losses.gan": "hinge",
    "trainer.batch": "2",
    "trainer.precision": "fp32",
    "trainer.evaluate_every": "0",
    "trainer.sample_every": "0",
    "trainer.checkpoint_every": "0",
    "trainer.precise_bn_batches": "2",
    "trainer.calibration_batches": "0",
    "trainer.evaluate_pairs": "2",
    "trainer.sample_pairs": "1",
    "trainer.log_every": "1",
    "trainer.best_by": "psnr",
}


def make_pair(index: int, side: int = 48) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Imagery and map, each (side, side, 3) uint8; the same ones for the same index."""
    random = np.random.default_rng(index)
    target = np.empty((side, side, 3), np.uint8)
    target[:] = LAND
    for _ in range(5):
        top, left = random.integers(0, side - 12, 2)
        target[top : top + 12, left : left + 12] = COLOURS[random.integers(len(COLOURS))]
    source = target // 2 + random.integers(0, 20, target.shape, dtype=np.uint8)
    return source, target


def stopped_after(steps: int) -> dict[str, Callable[..., object]]:
    """Arguments of `train` that ask for a stop once this call has taken so many steps."""
    taken: list[object] = []
    return {"progress": taken.append, "stop": lambda: len(taken) >= steps}


def write_pairs(folder: Path, count: int, side: int = 48) -> Path:
    """A folder of side-by-side images."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.hstack(make_pair(index, side))).save(folder / f"{index}.png")
    return folder
