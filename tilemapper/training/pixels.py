"""All pixels of a set of pairs as two flat uint8 tensors, where a step gathers its patches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tilemapper.errors import PairError
from tilemapper.raster.atomic import writing_failed
from tilemapper.training.sources import PairSource

# Of the memory that is free now: the rest is for networks and activations.
USABLE_SHARE = 0.5


@dataclass(frozen=True)
class Pixels:
    """Images of any sizes, one after the other, row by row.

    ``source``: (total pixels, 3) uint8. ``target``: the same, both images of a pair at the same
    places, or (total pixels,) uint8 what the target's colours were made into.
    ``offset``, ``height``, ``width``: (pairs,) int64 on the same device.
    """

    source: Tensor
    target: Tensor
    offset: Tensor
    height: Tensor
    width: Tensor
    smallest: int

    def __len__(self) -> int:
        return len(self.offset)


def load_pixels(
    pairs: Sequence[tuple[PairSource, int]],
    *,
    resize: int,
    crop: int,
    storage: str,
    device: torch.device,
    folder: Path,
    make_target: Callable[[Tensor], Tensor] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Pixels:
    """Decodes all pairs by threads and puts them where ``storage`` says.

    Args:
        pairs: source and index of each.
        resize: shorter side in pixels that images are brought to; 0 keeps their size.
        crop: side of the patches that will be cut; no image may be smaller.
        storage: "auto", "device", "host" or "mmap", see `DataConfig`.
        device: the device that trains.
        folder: where "mmap" keeps its files.
        make_target: (n, 3) uint8 -> (n,) uint8, what is kept of the target in place of colours.
        check: called for each pair, and may raise.

    Raises:
        PairError: a pair is damaged or smaller than the crop.
        DiskFullError: the file does not fit.
    """
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        sizes = []
        for size in pool.map(lambda pair: _size(pair, resize, crop), pairs):
            check()
            sizes.append(size)
        areas = np.array([h * w for h, w in sizes], np.int64)
        offsets = np.concatenate([[0], np.cumsum(areas)])
        total = int(offsets[-1])
        bands = () if make_target else (3,)
        place = _place(storage, 3 * total + (total if make_target else 3 * total), device)
        on_disk = folder if place == "mmap" else None
        source, target = _empty((total, 3), on_disk), _empty((total, *bands), on_disk)

        def fill(row: int) -> None:
            here = slice(int(offsets[row]), int(offsets[row + 1]))
            imagery, colours = (side.reshape(-1, 3) for side in _load(pairs[row], resize))
            source[here] = imagery
            if make_target:  # of a copy: torch warns of arrays that are mapped to be read only
                colours = make_target(torch.from_numpy(np.array(colours))).numpy()
            target[here] = colours

        for _ in pool.map(fill, range(len(pairs))):
            check()
    where = device if place == "device" else torch.device("cpu")
    return Pixels(
        source=torch.from_numpy(source).to(where),
        target=torch.from_numpy(target).to(where),
        offset=torch.from_numpy(offsets[:-1].copy()).to(where),
        height=torch.tensor([h for h, _ in sizes], device=where),
        width=torch.tensor([w for _, w in sizes], device=where),
        smallest=min(min(size) for size in sizes),
    )


def _load(pair: tuple[PairSource, int], resize: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    source, target = pair[0].load(pair[1])
    return _resized(source, resize), _resized(target, resize)


def _size(pair: tuple[PairSource, int], resize: int, crop: int) -> tuple[int, int]:
    """Height and width after resizing; the image is decoded in full, so damage shows here."""
    height, width = pair[0].load(pair[1])[0].shape[:2]
    if resize:
        height, width = _new_size(height, width, resize)
    if min(height, width) < crop:
        raise PairError(
            f"{pair[0].names[pair[1]]}: {width}x{height} px found, at least {crop} px are needed; "
            f"remove it, or set data.resize or a smaller augment.crop"
        )
    return height, width


def _new_size(height: int, width: int, shorter: int) -> tuple[int, int]:
    scale = shorter / min(height, width)
    return round(height * scale), round(width * scale)


def _resized(image: NDArray[np.uint8], shorter: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    size = _new_size(height, width, shorter) if shorter else (height, width)
    if size == (height, width):
        return image
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    y = functional.interpolate(x, size=size, mode="bicubic", antialias=True)
    out: NDArray[np.uint8] = y.round_().clamp_(0, 255)[0].permute(1, 2, 0).byte().numpy()
    return out


def _place(storage: str, size_bytes: int, device: torch.device) -> str:
    if storage != "auto":
        return storage
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if size_bytes < USABLE_SHARE * free:
            return "device"
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "host" if size_bytes < USABLE_SHARE * free else "mmap"


def _empty(shape: tuple[int, ...], folder: Path | None) -> NDArray[np.uint8]:
    if folder is None:
        return np.empty(shape, np.uint8)
    # One a process, and without a name once it is mapped: nothing is left behind, even by a kill.
    path = folder / f".pixels.{os.getpid()}.npy"
    try:
        mapped: NDArray[np.uint8] = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.uint8, shape=shape
        )
        try:
            # Reserved now: a full disk must be an error here, not a crash at the first write.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        finally:
            path.unlink()
    except OSError as error:
        raise writing_failed(path, error) from error
    return mapped
