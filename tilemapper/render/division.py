"""How a machine and a raster are divided: processes, devices, cores, and the size of blocks."""

from __future__ import annotations

import heapq
import os

import torch

from tilemapper.errors import OptionError
from tilemapper.raster.encode import FILE_BLOCK
from tilemapper.raster.lattice import TILE, Lattice
from tilemapper.render.devices import device_numbers
from tilemapper.render.plan import DEFAULT_BLOCK

# A GPU runs so many tiles in the time that it takes to start a process and to load its libraries.
MANY = 20_000
# On a GPU a block's end costs more than its memory: the host is large, the device waits.
CUDA_BLOCK = 8192


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [] if named is None else [name.strip() for name in named.split(",") if name.strip()]
    # For CUDA the list ends with the first name that is no device's.
    return names[:count] or [str(index) for index in range(count)]


def named_gpus(device: str) -> list[str]:
    """The visible CUDA devices that ``cuda``, ``cuda:N`` or ``cuda:N,M`` means.

    Without a number those of the first one's kind: others come to other bytes, and what drives a
    screen beside it may lack bf16, memory, or torch's code.
    """
    visible = visible_gpus()
    numbers = device_numbers(device)
    if numbers:
        return [visible[number] for number in numbers]
    kinds = [torch.cuda.get_device_name(index) for index in range(len(visible))]
    return [name for name, kind in zip(visible, kinds, strict=True) if kind == kinds[0]]


def worker_count(workers: str | int | None, device: str = "auto", tiles: int = MANY) -> int:
    """Worker processes on this machine; 0 when this process renders alone.

    Args:
        workers: ``auto`` (or None) is one for each visible GPU of the first one's kind if there are
            several, and one for each that ``device`` names; a number is that many, where 1 is this
            process itself.
        device: as the user gave it.
        tiles: of the raster; with ``auto``, few of them are not worth starting processes for.

    Raises:
        OptionError: no number of workers, or fewer than devices are named.
    """
    listed = len(device_numbers(device) or ())
    if workers is None or workers == "auto":
        if listed:
            count = listed
        elif device not in ("auto", "cuda") or tiles < MANY:
            return 0
        else:
            count = len(named_gpus("cuda"))
    elif str(workers).isdigit() and int(workers) > 0:
        count = int(workers)
    else:
        raise OptionError(f"--workers {workers!r}: must be auto, or a number from 1 on")
    if count < listed:
        raise OptionError(
            f"--workers {workers}: {listed} devices are named, each needs a worker; give more "
            f"workers, or fewer devices than {device}"
        )
    return count if count > 1 else 0


def threads_each(count: int) -> int:
    """Cores for each of ``count`` processes on this machine, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // count)


def environments(count: int, device: str) -> list[dict[str, str]]:
    """What each of ``count`` worker processes on this machine finds in its environment.

    On CUDA each sees one of the named devices, in turn: several workers may share one, to read and
    encode beside each other. On CPU each has its share of the cores.
    """
    if device.startswith("cuda"):
        gpus = named_gpus(device)
        return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count)]
    threads = str(threads_each(count))
    return [{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} for _ in range(count)]


def block_for(
    height: int,
    width: int,
    overlap: int,
    workers: int,
    largest: int = DEFAULT_BLOCK,
    *,
    tile: int = TILE,
) -> int:
    """The size of blocks with which ``workers`` are done first, ``largest`` px at most.

    Smaller blocks share the work better, but run more tiles twice. All sizes are file blocks
    times a power of two, so that workers can make overview levels alone.
    """
    if workers < 2:
        return largest
    lattice = Lattice(height, width, overlap, tile)
    best, best_tiles, size = largest, _slowest(lattice, largest, workers), largest
    while size > FILE_BLOCK:
        size //= 2
        tiles = _slowest(lattice, size, workers)
        if tiles < best_tiles:
            best, best_tiles = size, tiles
        elif -(-height // size) * -(-width // size) > 4 * workers:
            break
    return best


def _slowest(lattice: Lattice, size: int, workers: int) -> int:
    """Tiles of the worker that has the most, each block going to the one that is free first."""
    loads = [0] * workers
    for block in lattice.blocks(size):
        heapq.heapreplace(loads, loads[0] + lattice.tiles_of(block))
    return max(loads)
