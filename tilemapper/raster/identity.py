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
