"""Whether a file is still the file that a plan was made for."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rasterio.io import DatasetReader

from tilemapper.errors import RasterChangedError, RasterError
from tilemapper.raster.drivers import driver_of
from tilemapper.raster.opening import is_remote, open_raster, reading
from tilemapper.raster.spec import SourceSpec

_END_BYTES = 64 * 1024
# File blocks of a remote raster whose places are looked at: other pixels pack to other sizes.
_PLACES = 16
# VRTs whose members are VRTs, and so on: what lies deeper is not looked at.
_VRT_LEVELS = 16
# What a copy does not keep.
TIMES = ("mtime_ns", "beside_times")


def identity_of(path: str, src: DatasetReader) -> dict[str, Any]:
    """Size, time and a hash of both ends of a file, and of what GDAL reads beside it.

    Of a remote one a hash of its header and of where some of its file blocks lie. A hash of
    all of it would cost as much as rendering a fast model.

    Raises:
        RasterError: the disk cannot give them.
    """
    if is_remote(path):
        tags = sorted(src.tags().items())
        header = repr((sorted(map(str, src.profile.items())), tags, _places(src)))
        return {"header_sha256": hashlib.sha256(header.encode()).hexdigest()}
    file = Path(path)
    digest = hashlib.sha256()
    with reading(path):
        status = file.stat()
        with file.open("rb") as stream:
            digest.update(stream.read(_END_BYTES))
            stream.seek(max(0, status.st_size - _END_BYTES))
            digest.update(stream.read(_END_BYTES))
        beside = _beside(path, src)
    return {
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ends_sha256": digest.hexdigest(),
        **beside,
    }


def _places(src: DatasetReader) -> list[str | None]:
    """Offset and size of some file blocks of a TIFF, evenly spread."""
    if src.driver != "GTiff":
        return []
    rows, cols = src.block_shapes[0]
    down, across = -(-src.height // rows), -(-src.width // cols)
    return [
        src.get_tag_item(f"BLOCK_{what}_{block % across}_{block // across}", dm="TIFF", bidx=1)
        for block in sorted({k * down * across // _PLACES for k in range(_PLACES)})
        for what in ("OFFSET", "SIZE")
    ]


def _beside(path: str, src: DatasetReader) -> dict[str, str]:
    """Hashes of the files that a raster has its pixels or mask in besides itself: a VRT's, a .msk.

    Not of what a GIS adds that opens the raster, ``.aux.xml``, of which CRS and nodata are in the
    plan, and overviews, which no render reads. {} where there are none.
    """
    names, times = [], []
    for name in _files_behind(path, src):
        file = Path(name)
        status = file.stat()
        names.append((file.name, status.st_size))
        times.append(status.st_mtime_ns)
    if not names:
        return {}
    return {
        "beside_sha256": hashlib.sha256(repr(names).encode()).hexdigest(),
        "beside_times": hashlib.sha256(repr(times).encode()).hexdigest(),
    }


def files_behind(source: SourceSpec) -> list[str]:
    """The local files that a source has its pixels or mask in besides itself."""
    if "beside_sha256" not in source.identity or not Path(source.path).exists():
        return []
    with open_raster(source.path, allow_drivers=(source.driver,)) as src:
        return _files_behind(source.path, src)


def _files_behind(path: str, src: DatasetReader) -> list[str]:
    """The local files of a raster but for its own, sorted; of VRTs among a VRT's also theirs."""
    seen = {os.path.realpath(path)}  # VRTs may name each other in a circle
    found: list[str] = []
    level: Iterable[str] = src.files
    for _ in range(_VRT_LEVELS):
        new = {}
        for name in level:
            real = os.path.realpath(name)
            if (
                real not in seen
                and not name.endswith((".aux.xml", ".ovr"))
                and Path(name).is_file()
            ):
                new[real] = name
        seen |= new.keys()
        found += new.values()
        if src.driver != "VRT":
            break
        level = [member for name in new.values() for member in _members(name)]
    return sorted(found)


def _members(path: str) -> list[str]:
    """The files of a VRT; [] of other rasters, and of one that GDAL would not open either."""
    with contextlib.suppress(RasterError):
        if driver_of(path) == "VRT":
            with open_raster(path, allow_drivers=("VRT",)) as src:
                return list(src.files)
    return []


def check_identity(path: str, src: DatasetReader, planned: dict[str, Any]) -> None:
    """Refuses a file that changed since it was inspected; its time alone may differ.

    Raises:
        RasterError: size or content differ.
    """
    now = identity_of(path, src)
    if any(now.get(key) != value for key, value in planned.items() if key not in TIMES):
        raise RasterError(f"{path}: changed since the run was planned; start again with --restart")


def check_unchanged(path: str, planned: dict[str, Any], *, driver: str = "GTiff") -> None:
    """Refuses a local file that was written to since it was inspected, while it was read.

    One that was removed is no such case: it stays what it was for whoever has it open.

    Raises:
        RasterChangedError: its size or time differs from ``planned``, its identity before; or
            those of a file that it has pixels or its mask in.
        RasterError: it cannot be opened now to see which files those are.
    """
    if is_remote(path):
        return
    try:
        status = Path(path).stat()
    except OSError:
        return
    beside: dict[str, str] = {}
    if "beside_sha256" in planned:
        with open_raster(path, allow_drivers=(driver,)) as src, reading(path):
            beside = _beside(path, src)
    if (status.st_size, status.st_mtime_ns) != (planned["size_bytes"], planned["mtime_ns"]) or any(
        planned[key] != value for key, value in beside.items()
    ):
        raise RasterChangedError(
            f"{path}: changed while it was read, so the result would be of two versions; run the "
            "same command again once nothing writes to it"
        )
