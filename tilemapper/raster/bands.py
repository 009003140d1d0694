"""Which bands are red, green and blue, and what says that a pixel is valid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError
from tilemapper.raster.spec import SourceOptions

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
# Three of these are colours too, but not red, green and blue.
_OTHER_COLOUR_SPACES = {
    "cyan": "CMYK",
    "hue": "HSL",
    "Y": "YCbCr",
}


@dataclass(frozen=True)
class Bands:
    """What is read: see the fields of the same names in `SourceSpec`."""

    bidx: tuple[int, ...]
    palette: bool
    nodata: tuple[float | None, ...] | None
    mask: bool
    alpha: int | None
    notices: tuple[str, ...]


def choose_bands(src: DatasetReader, path: str, options: SourceOptions) -> Bands:
    """Bands by ``--bidx``, else by colour interpretation; validity as the file declares it.

    Raises:
        RasterError: no three colour bands can be told, or a band is complex or not there.
    """
    if all(dtype.startswith("complex") for dtype in src.dtypes):
        raise _complex_error(path, src.dtypes[0])
    bidx, notices = _colour_bands(src, path, options.bidx)
    palette = options.bidx is None and len(bidx) == 1
    for band in bidx:
        if src.dtypes[band - 1].startswith("complex"):
            raise _complex_error(path, src.dtypes[band - 1])
    nodata, nodata_notices = _nodata(src, bidx, options.nodata)
    alphas = [
        i for i, c in zip(src.indexes, src.colorinterp, strict=True) if c == ColorInterp.alpha
    ]
    alpha = next((band for band in alphas if band not in bidx), None)
    flags = src.mask_flag_enums[bidx[0] - 1]
    mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    if mask and options.nodata is None:
        nodata = None  # as GDAL does: a mask overrules the declared value
    return Bands(
        bidx=bidx,
        palette=palette,
        nodata=nodata,
        mask=mask,
        alpha=alpha,
        notices=(*notices, *nodata_notices),
    )


def _complex_error(path: str, dtype: str) -> RasterError:
    return RasterError(
        f"{path}: pixels are {dtype}, real numbers are needed; convert them to amplitudes first"
    )


def palette_of(src: DatasetReader) -> NDArray[np.uint8]:
    """Colours of band 1 by index, (n, 4) uint8: red, green, blue, alpha."""
    entries = src.colormap(1)
    colours = np.zeros((max(entries) + 1, 4), np.uint8)
    for index, colour in entries.items():
        colours[index] = colour
    return colours


def _colour_bands(
    src: DatasetReader, path: str, asked: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if asked is not None:
        if max(asked) > src.count:
            raise RasterError(
                f"{path}: {src.count} band(s) found, --bidx asks for band {max(asked)}; choose "
                f"three of 1 to {src.count}"
            )
        return asked, ()
    meanings = list(src.colorinterp)
    names = [meaning.name for meaning in meanings]
    if all(meanings.count(colour) == 1 for colour in _RGB):
        return tuple(meanings.index(colour) + 1 for colour in _RGB), ()
    if names[0] == "palette":
        return (1,), ()
    space = next((_OTHER_COLOUR_SPACES[n] for n in names if n in _OTHER_COLOUR_SPACES), None)
    if space is not None:
        raise RasterError(
            f"{path}: bands are {space} ({', '.join(names)}), red, green, blue are needed; convert "
            "it to RGB, or choose bands with --bidx"
        )
    colours = [i for i, m in enumerate(meanings, start=1) if m != ColorInterp.alpha]
    if len(colours) < 3:
        raise RasterError(
            f"{path}: {src.count} band(s) ({', '.join(names)}) found, red, green and blue are "
            "needed; to render grey as it is, give --bidx 1,1,1"
        )
    if len(colours) == 3:
        return tuple(colours), ()
    told = (
        f"{path}: bands are {', '.join(names)}; {colours[:3]} are taken as red, green, blue; "
        "choose with --bidx"
    )
    return tuple(colours[:3]), (told,)


def _nodata(
    src: DatasetReader, bidx: tuple[int, ...], asked: float | None
) -> tuple[tuple[float | None, ...] | None, tuple[str, ...]]:
    """The values that mean nothing, one for each band, without those that cannot occur."""
    values = [src.nodatavals[band - 1] if asked is None else asked for band in bidx]
    kept: list[float | None] = []
    notices: list[str] = []
    for band, value in zip(bidx, values, strict=True):
        dtype = src.dtypes[band - 1]
        if value is None or _can_hold(dtype, float(value)):
            kept.append(None if value is None else float(value))
            continue
        kept.append(None)
        if asked is not None and not notices:
            notices.append(f"{src.name}: no {dtype} pixel can be {value}; nodata is not used")
    return (tuple(kept) if any(v is not None for v in kept) else None), tuple(notices)


def _can_hold(dtype: str, value: float) -> bool:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    if not math.isfinite(value) or value != int(value):
        return False
    limits = np.iinfo(kind)
    return int(limits.min) <= int(value) <= int(limits.max)
