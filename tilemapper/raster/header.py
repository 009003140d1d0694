"""What GDAL says of an open raster, and whether two openings of one file say the same.

Where a read fails while GDAL looks at a file's directories, it warns and goes on without what it
could not read: a raster then lies nowhere, is valid everywhere, or has other colours. A read that
fails once does so in one of two openings only.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError, shortage

# Directories, overviews and masks are looked for when they are asked for. An error that GDAL met
# then is raised where a colour is asked for next, unless GDAL has opened a file beside it since:
# so directories come first. After such an error libtiff may abort the process that reads a pixel.
_QUESTIONS: dict[str, Callable[[DatasetReader], object]] = {
    "directories": lambda src: (src.subdatasets, src.colorinterp),
    "overviews": lambda src: (src.overviews(1), src.colorinterp),
    "mask or colours": lambda src: (src.mask_flag_enums, src.colorinterp),
    "driver": lambda src: src.driver,
    "size": lambda src: (src.height, src.width, src.count),
    "types": lambda src: src.dtypes,
    "file blocks": lambda src: (src.block_shapes, src.interleaving, src.compression),
    "CRS": lambda src: src.crs and src.crs.to_wkt(),
    "transform": lambda src: tuple(src.transform),
    "control points": lambda src: [
        [(p.row, p.col, p.x, p.y, p.z) for p in src.gcps[0]],
        src.gcps[1] and src.gcps[1].to_wkt(),
    ],
    "RPCs": lambda src: src.rpcs,
    "nodata": lambda src: src.nodatavals,
    "colours": lambda src: (src.photometric, src.colorinterp),
    "palette": lambda src: src.colormap(1) if ColorInterp.palette in src.colorinterp else None,
    "scales": lambda src: (src.scales, src.offsets),
    "tags": lambda src: src.tags(),
    "bits": lambda src: [src.tags(band, ns="IMAGE_STRUCTURE") for band in src.indexes],
}

# Of one data set, at once: the raster, its mask, its overviews, the overviews of its mask, a member
# of a VRT with the same, and some that the process opens for itself meanwhile.
_FILES = 16


def answers(src: DatasetReader) -> dict[str, str]:
    """All that GDAL says of a data set on which a result may depend, by what it is.

    An error is an answer too: of a file that is as it was written, every opening meets it.
    """
    return {name: _answer(src, ask) for name, ask in _QUESTIONS.items()}


def _answer(src: DatasetReader, ask: Callable[[DatasetReader], object]) -> str:
    try:
        return repr(ask(src))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def check_same(
    path: str, one: DatasetReader, other: DatasetReader, *, overview: bool = False
) -> None:
    """Refuses a raster of which two openings, that share nothing, say different things.

    What lies in a file beside the raster GDAL goes without where it may open no more files.

    overview: one of its overviews was opened. Of a raster without georeferencing GDAL leaves an
    overview's transform as it found the memory: nobody asks for it, and none is compared.

    Raises:
        ShortageError: they do, and there are too many open files.
        RasterError: they do.
    """
    first, second = answers(one), answers(other)
    asked = [name for name in _QUESTIONS if not (overview and name == "transform")]
    differ = [name for name in asked if first[name] != second[name]]
    if differ:
        _check_files_left(path)
        raise RasterError(
            f"{path}: opened twice, and found two different headers ({', '.join(differ)}): a read "
            "failed, or something writes to it; check the disk, and run the same command again"
        )


def _check_files_left(path: str) -> None:
    """Opens as many files more as a data set may consist of.

    Raises:
        ShortageError: so many may not be opened.
    """
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(_FILES):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                error.filename = path
                raise (shortage(error) or error) from error
