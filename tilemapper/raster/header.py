"""What GDAL says of an open raster, and whether two openings of one file say the same.

Where a read fails while GDAL looks at a file's directories, it warns and goes on without what it
could not read: a raster then lies nowhere, is valid everywhere, or has other colours. A read that
fails once does so in one of two openings only.
"""

from __future__ import annotations

from collections.abc import Callable

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError

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

    overview: one of its overviews was opened. Of a raster without georeferencing GDAL leaves an
    overview's transform as it found the memory: nobody asks for it, and none is compared.

    Raises:
        RasterError: they do.
    """
    first, second = answers(one), answers(other)
    asked = [name for name in _QUESTIONS if not (overview and name == "transform")]
    differ = [name for name in asked if first[name] != second[name]]
    if differ:
        raise RasterError(
            f"{path}: opened twice, and found two different headers ({', '.join(differ)}): a read "
            "failed, or something writes to it; check the disk, and run the same command again"
        )
