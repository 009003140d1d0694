"""Failures of files that GDAL writes itself, as errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from tilemapper.errors import DiskFullError, TargetError, shortage, too_many_files
from tilemapper.raster.atomic import FULL

_LIBTIFF = re.compile(rb"^_tiff\w+Proc: .*\n?", re.MULTILINE)


@contextlib.contextmanager
def gdal_writes(target: Path | str, advice: str = "choose another path") -> Iterator[None]:
    """Turns what goes wrong while GDAL writes ``target`` into one error.

    libtiff prints failed writes on the process's stderr, past GDAL and Python, and GDAL may end
    without an error all the same: both are caught here. Whatever else is printed meanwhile comes
    out at the end.

    Raises:
        DiskFullError: the disk is full, or the quota used up.
        ShortageError: there are too many open files.
        TargetError: GDAL cannot write it for another reason; ``advice`` says what to do then.
    """
    cause: Exception | None = None
    printed: list[str] = []
    with _libtiff_lines(printed):
        try:
            yield
        except (RasterioError, CPLE_BaseError, SystemError) as error:  # the last: without words
            cause = error
    if cause is None and not printed:
        return
    # The cause of a RasterioError is GDAL's own words.
    words = [str(error) for error in (cause, cause and cause.__cause__) if error is not None]
    said = " ".join("; ".join([*words, *sorted(set(printed))]).split())
    for number in FULL:
        if os.strerror(number) in said:
            raise DiskFullError(
                f"{target}: {os.strerror(number)}; free some space and run the same command again"
            ) from cause
    short = too_many_files(target, said)
    raise short or TargetError(f"{target}: GDAL cannot write it ({said}); {advice}") from cause


@contextlib.contextmanager
def _libtiff_lines(found: list[str]) -> Iterator[None]:
    """Takes libtiff's lines out of what is written to file descriptor 2 meanwhile."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        reading, writing = os.pipe()
    except OSError as error:
        os.close(stderr)
        raise shortage(error) or error from None
    # What is more than a pipe holds is dropped: nobody reads before the end.
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    os.dup2(writing, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        said = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(reading, 1 << 16):
                said += part
        for descriptor in (stderr, reading, writing):
            os.close(descriptor)
        found += [line.decode(errors="replace").strip() for line in _LIBTIFF.findall(said)]
        rest = _LIBTIFF.sub(b"", said)
        with contextlib.suppress(OSError):
            os.write(2, rest) if rest else None
