"""Makes pair folders for the tests of the training package."""

from pathlib import Path

import numpy as np
from PIL import Image

LAND, ROAD, WATER, PARK = (232, 228, 224), (255, 255, 255), (177, 209, 255), (203, 223, 171)
MOTORWAY, BUILDING = (252, 160, 36), (244, 240, 236)


def make_map(seed, size=128):
    """A map of straight streets and blocks of water and park, (size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = LAND
    for colour in (WATER, PARK, BUILDING, BUILDING):
        row, col = rng.integers(0, size * 3 // 4, 2)
        height, width = rng.integers(size // 8, size // 3, 2)
        image[row : row + height, col : col + width] = colour
    for at in rng.integers(4, size - 8, 3):
        image[at : at + 5] = ROAD
    for at in rng.integers(4, size - 8, 2):
        image[:, at : at + 5] = ROAD
    at = rng.integers(4, size - 8)
    image[:, at : at + 4] = MOTORWAY
    return image


def make_satellite(map_image, seed):
    """Other colours, same edges, with noise: what a photograph of that ground could look like."""
    rng = np.random.default_rng(seed + 1000)
    shade = map_image @ np.array([0.9, -0.9, 0.5]) * 0.8
    grey = np.clip(shade[..., None] + rng.normal(0, 8, map_image.shape), 0, 255)
    return grey.astype(np.uint8)


def make_pair(seed, size=128):
    target = make_map(seed, size)
    return make_satellite(target, seed), target


def write_side_by_side(folder: Path, count: int, size=128, first=1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        both = np.concatenate(make_pair(number, size), axis=1)
        Image.fromarray(both).save(folder / f"{number}.png")
    return folder


def load_all(source):
    """All sources and all targets of pairs of one size, (n, h, w, 3) uint8 each."""
    return tuple(map(np.stack, zip(*map(source.load, range(len(source))), strict=True)))
