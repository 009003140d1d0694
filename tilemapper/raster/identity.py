"""Whether a file is still the file that a plan was made for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rasterio.io import DatasetReader

from tilemapper.errors import RasterError
from tilemapper.raster.opening import is_remote

_END_BYTES = 64 * 1024


def identity_of(path: str, src: DatasetReader) -> dict[str, Any]:
    """Size, time and a hash of both ends of a file; of a remote one, a hash of its header.

    A hash of all of it would cost as much as rendering a fast model.
    """
    if is_remote(path):
        header = repr((sorted(map(str, src.profile.items())), sorted(src.tags().items())))
        return {"header_sha256": hashlib.sha256(header.encode()).hexdigest()}
    file = Path(path)
    status = file.stat()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(_END_BYTES))
        stream.seek(max(0, status.st_size - _END_BYTES))
        digest.update(stream.read(_END_BYTES))
    return {
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ends_sha256": digest.hexdigest(),
    }


def check_identity(path: str, src: DatasetReader, planned: dict[str, Any]) -> None:
    """Refuses a file that changed since it was inspected; its time alone may differ.

    Raises:
        RasterError: size or content differ.
    """
    now = identity_of(path, src)
    if any(now.get(key) != value for key, value in planned.items() if key != "mtime_ns"):
        raise RasterError(f"{path}: changed since the run was planned; start again with --restart")


def check_unchanged(path: str, planned: dict[str, Any]) -> None:
    """Refuses a local file that was written to since it was inspected, while it was read.

    One that was removed is no such case: it stays what it was for whoever has it open.

    Raises:
        RasterError: its size or time differs from ``planned``, its identity before.
    """
    if is_remote(path):
        return
    try:
        status = Path(path).stat()
    except OSError:
        return
    if (status.st_size, status.st_mtime_ns) != (planned["size_bytes"], planned["mtime_ns"]):
        raise RasterError(
            f"{path}: changed while it was read, so the result would be of two versions; run the "
            "same command again once nothing writes to it"
        )
