"""Writes the synthetic city as georeferenced rasters: demo, test raster, benchmark raster.

The picture is invented. Its tones and its ground sampling distance are those of the imagery that
the shipped model was trained on, so that the model has something to say about it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from tilemapper import __version__
from tilemapper.errors import OptionError, TargetError
from tilemapper.paths import alone_in, real_path
from tilemapper.raster.atomic import GEOTIFF, check_regular, check_suffix
from tilemapper.raster.writing import GridWriter, grid_writer
from tilemapper.report.city.painter import Painter

CRS = "EPSG:32618"
GSD_M = 0.9
_CORNER = (586_000.0, 4_512_000.0)  # east, north: Manhattan's west side
_WINDOW = 2048  # pixels painted at once; whole file blocks
_THREADS = 4  # more gain little: part of the painting holds the interpreter
LARGEST = 400_000  # pixels a side: beyond it the fixed-point coordinates would overflow

Window = tuple[int, int, int, int]  # row, col, height, width


@dataclass(frozen=True)
class SampleFiles:
    """What `write_city` has written."""

    city: Path
    truth: Path | None
    height: int
    width: int
    seed: int
    seconds: float


def write_city(
    city: Path,
    *,
    truth: Path | None = None,
    height: int = 2048,
    width: int = 2048,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> SampleFiles:
    """Writes a synthetic city, and its true map if asked for.

    The same seed and size give the same pixels on every machine, and the same bytes with the same
    GDAL. Memory does not grow with the size.

    Args:
        city: the imagery's path, a GeoTIFF.
        truth: the true map's path.
        height: rows.
        width: columns.
        seed: which city.
        overwrite: replace files that are there.
        progress: called with the number of pixels done since the last call.

    Raises:
        OptionError: a size that is not between 1 and 400,000 pixels, twice the same path, or a
            name of another kind of file.
        TargetError: a path is taken or cannot be written.
        DiskFullError: the disk is full; nothing is left behind.
    """
    started = time.perf_counter()
    if not (1 <= height <= LARGEST and 1 <= width <= LARGEST):
        raise OptionError(
            f"size: {width}x{height} found, 1 to {LARGEST} pixels a side are needed; choose another"
        )
    paths = [city] if truth is None else [city, truth]
    _check_targets(paths, overwrite=overwrite)
    painter = Painter(seed, height, width)
    with contextlib.ExitStack() as naming, contextlib.ExitStack() as stack:
        outputs: list[tuple[int, GridWriter]] = []
        for layer, path in enumerate([city, truth]):
            if path is not None:
                tags = _tags(seed, map_of=city.name if layer else None)
                outputs.append((layer, stack.enter_context(_writer(path, height, width, tags))))
        for window, layers in _painted(painter, _windows(height, width)):
            for layer, writer in outputs:
                writer.write(layers[layer], row=window[0], col=window[1])
            if progress is not None:
                progress(window[2] * window[3])
        for _, writer in outputs:  # before any of them has its name
            writer.finish()
        # So that another run's do not get between the two names: its city would have this map.
        naming.enter_context(alone_in(city.absolute().parent))
        _check_targets(paths, overwrite=overwrite)  # another run may have ended since
    return SampleFiles(city, truth, height, width, seed, time.perf_counter() - started)


def _check_targets(paths: list[Path], *, overwrite: bool) -> None:
    if len(paths) == 2 and real_path(paths[0]) == real_path(paths[1]):
        raise OptionError(f"{paths[0]}: named as imagery and as map; choose two paths")
    for path in paths:
        check_suffix(path, "GeoTIFF", GEOTIFF, ", and convert it with gdal_translate")
        if path.is_dir():
            raise TargetError(f"{path}: is a folder, a file name is needed; choose another path")
        check_regular(path)
        if os.path.lexists(path) and not overwrite:
            raise TargetError(f"{path}: exists already; remove it or add --overwrite")
        folder = path.absolute().parent
        if not folder.is_dir():
            raise TargetError(f"{path}: folder {folder} is missing; create it first")
        if not os.access(folder, os.W_OK):
            raise TargetError(f"{path}: folder {folder} may not be written; choose another path")


def _tags(seed: int, *, map_of: str | None) -> dict[str, str]:
    what = "True map of a synthetic city" if map_of else "Synthetic city"
    return {
        "TIFFTAG_SOFTWARE": f"tilemapper {__version__}",
        "TIFFTAG_IMAGEDESCRIPTION": f"{what}, seed {seed}: invented, shows no real place.",
    }


def _writer(
    path: Path, height: int, width: int, tags: dict[str, str]
) -> contextlib.AbstractContextManager[GridWriter]:
    transform = Affine(GSD_M, 0.0, _CORNER[0], 0.0, -GSD_M, _CORNER[1])
    return grid_writer(path, height=height, width=width, crs=CRS, transform=transform, tags=tags)


def _windows(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, _WINDOW):
        for col in range(0, width, _WINDOW):
            yield row, col, min(_WINDOW, height - row), min(_WINDOW, width - col)


def _painted(
    painter: Painter, windows: Iterator[Window]
) -> Iterator[tuple[Window, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """Windows in order, painted ahead by a few threads; only as many as there are threads wait."""
    threads = min(_THREADS, os.cpu_count() or 1)
    waiting: deque[tuple[Window, Future[tuple[NDArray[np.uint8], NDArray[np.uint8]]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for window in windows:
                waiting.append((window, pool.submit(painter.paint, *window)))
                if len(waiting) > threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
