"""Pairs of satellite and map images: opens any layout, loads all of them at once, packs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError, PairError
from tilemapper.training.npz import Npz, pack_pairs
from tilemapper.training.sources import (
    Direction,
    Folders,
    Pair,
    PairSource,
    SideBySide,
    is_sided,
)
from tilemapper.training.split import Split, split_pairs

__all__ = [
    "Direction",
    "Pair",
    "PairSource",
    "Split",
    "load_arrays",
    "open_pairs",
    "pack_pairs",
    "split_pairs",
]


def open_pairs(
    path: str | Path, *, direction: Direction = "AtoB", unpaired: bool = False
) -> PairSource:
    """Opens pairs in whatever layout they have; images are decoded when they are loaded.

    Layouts: a folder of side-by-side images (half is half); folders ``A`` and ``B`` matched by
    name (GeoTIFFs of `cut_pairs` too), also inside ``train`` and ``val`` or as ``trainA`` and
    ``trainB``; a ``.npz`` file. Sub-folders ``train`` and ``val`` become part of the names.

    Args:
        path: folder or file.
        direction: "AtoB" gives A as the source and B as the target; "BtoA" the other way round.
        unpaired: do not match names of ``A`` and ``B`` (CycleGAN).

    Raises:
        PairError: nothing is there, a side is missing, or the .npz file cannot be used.
        OptionError: the direction is neither "AtoB" nor "BtoA".
    """
    if direction not in ("AtoB", "BtoA"):
        raise OptionError(f"direction: {direction!r} found, AtoB or BtoA is needed; choose one")
    path = Path(path)
    if path.suffix.lower() == ".npz" and path.is_file():
        return Npz(path, direction)
    if not path.is_dir():
        raise PairError(f"{path}: no such folder or .npz file; check the path")
    if is_sided(path):
        return Folders(path, direction, unpaired=unpaired)
    return SideBySide(path, direction)


def load_arrays(
    source: PairSource, indices: Sequence[int] | None = None, *, folder: Path | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All chosen pairs as two arrays (n, h, w, 3) uint8, decoded by threads.

    Args:
        source: the pairs.
        indices: which ones, in this order; all of them by default.
        folder: where to keep the arrays as memory-mapped ``source.npy`` and ``target.npy``;
            in memory by default.

    Raises:
        PairError: a pair is damaged, or its size differs from the first pair's.
    """
    chosen = range(len(source)) if indices is None else indices
    if not len(chosen):
        raise PairError("no pair chosen, at least one is needed; check the split")
    first = source.load(chosen[0])
    shape = (len(chosen), *first[0].shape)
    arrays = _new_array(shape, folder, "source"), _new_array(shape, folder, "target")

    def fill(row: int) -> None:
        images = source.load(chosen[row])
        for array, image in zip(arrays, images, strict=True):
            if image.shape != shape[1:]:
                raise PairError(
                    f"{source.names[chosen[row]]}: {image.shape[1]}x{image.shape[0]} px found, "
                    f"{shape[2]}x{shape[1]} as in {source.names[chosen[0]]} is needed; "
                    "run tilemapper pairs check"
                )
            array[row] = image

    # Decoders release the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(len(chosen))):
            pass
    return arrays


def _new_array(shape: tuple[int, ...], folder: Path | None, name: str) -> NDArray[np.uint8]:
    if folder is None:
        return np.empty(shape, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    mapped: NDArray[np.uint8] = np.lib.format.open_memmap(
        folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    return mapped
