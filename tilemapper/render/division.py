"""How a machine and a raster are divided: processes, devices, cores, and the size of blocks."""

from __future__ import annotations

import heapq
import os

import torch

from tilemapper.errors import OptionError
from tilemapper.raster.encode import FILE_BLOCK
from tilemapper.raster.lattice import Lattice
from tilemapper.render.plan import DEFAULT_BLOCK

# A GPU runs so many tiles in the time that it takes to start a process and to load its libraries.
MANY = 20_000


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [] if named is None else [name.strip() for name in named.split(",") if name.strip()]
    return names or [str(index) for index in range(torch.cuda.device_count())]


def worker_count(workers: str | int | None, device: str = "auto", tiles: int = MANY) -> int:
    """Worker processes on this machine; 0 when this process renders alone.

    Args:
        workers: ``auto`` (or None) is one for each visible GPU if there are several; a number is
            that many, where 1 is this process itself.
        device: as the user gave it.
        tiles: of the raster; with ``auto``, few of them are not worth starting processes for.

    Raises:
        OptionError: no number of workers, or several for one numbered device.
    """
    if workers is None or workers == "auto":
        if device not in ("auto", "cuda") or tiles < MANY:
            return 0
        count = len(visible_gpus())
    elif str(workers).isdigit() and int(workers) > 0:
        count = int(workers)
    else:
        raise OptionError(f"--workers {workers!r}: must be auto, or a number from 1 on")
    if count > 1 and ":" in device:
        raise OptionError(
            f"--workers {workers}: device {device} is one device; give --device cuda for all"
        )
    return count if count > 1 else 0


def threads_each(count: int) -> int:
    """Cores for each of ``count`` processes on this machine, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // count)


def environments(count: int, device: str) -> list[dict[str, str]]:
    """What each of ``count`` worker processes on this machine finds in its environment.

    On CUDA each sees one device, in turn; on CPU each has its share of the cores.
    """
    if device.startswith("cuda"):
        gpus = visible_gpus()
        return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count)]
    threads = str(threads_each(count))
    return [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for _ in range(count)]


def block_for(height: int, width: int, overlap: int, workers: int) -> int | None:
    """The size of blocks with which ``workers`` are done first; None if the usual one will do.

    Smaller blocks share the work better, but run more tiles twice. All sizes are file blocks
    times a power of two, so that workers can make overview levels alone.
    """
    if workers < 2:
        return None
    lattice = Lattice(height, width, overlap)
    best, best_tiles, size = DEFAULT_BLOCK, _slowest(lattice, DEFAULT_BLOCK, workers), DEFAULT_BLOCK
    while size > FILE_BLOCK:
        size //= 2
        tiles = _slowest(lattice, size, workers)
        if tiles < best_tiles:
            best, best_tiles = size, tiles
        elif -(-height // size) * -(-width // size) > 4 * workers:
            break
    return None if best == DEFAULT_BLOCK else best


def _slowest(lattice: Lattice, size: int, workers: int) -> int:
    """Tiles of the worker that has the most, each block going to the one that is free first."""
    loads = [0] * workers
    for block in lattice.blocks(size):
        heapq.heapreplace(loads, loads[0] + lattice.tiles_of(block))
    return max(loads)
