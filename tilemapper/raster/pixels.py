"""Windows of an open data set as RGB bytes and validity, on the file's own pixel grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tilemapper.errors import RasterError, too_many_files
from tilemapper.raster.answers import refusal
from tilemapper.raster.bands import palette_of
from tilemapper.raster.listening import Heard, listening
from tilemapper.raster.opening import GDAL_ERRORS, is_remote, read_options, refuse_lost
from tilemapper.raster.placed import check_places
from tilemapper.raster.scaling import to_bytes

Values = NDArray[np.generic]


class Pixels:
    """Reads windows of an open data set.

    overview: the one that was opened in the raster's stead, counted from 0.
    """

    def __init__(
        self,
        src: DatasetReader,
        *,
        path: str,
        bidx: tuple[int, ...],
        palette: bool,
        nodata: tuple[float | None, ...] | None,
        mask: bool,
        alpha: tuple[int, float] | None,
        scale: tuple[tuple[float, float], ...] | None = None,
        overview: int | None = None,
    ) -> None:
        self.src = src
        self.height, self.width = src.height, src.width
        self._path, self._options = path, read_options(path)
        self._bidx, self._nodata, self._mask, self._alpha = bidx, nodata, mask, alpha
        self._scale = scale
        self._palette = palette_of(src) if palette else None
        self._overview = overview
        self._placed = src.driver == "GTiff" and not is_remote(path)
        # A VRT opens its members when they are read first; one that has lost its mask stays open.
        self._lazy, self._lost = src.driver == "VRT", list[str]()
        self._hears = self._lazy or is_remote(path)
        wanted = [*bidx, *([alpha[0]] if alpha else [])]
        self._read = sorted(set(wanted))
        # A band that is wanted three times is read once.
        self._where = [self._read.index(band) for band in wanted]
        self._types = {src.dtypes[band - 1] for band in self._read}
        self._colour_type = np.result_type(*(src.dtypes[band - 1] for band in bidx))

    def values(
        self,
        *,
        row: float,
        col: float,
        height: float,
        width: float,
        shape: tuple[int, int] | None = None,
        average: bool = True,
    ) -> tuple[Values, NDArray[np.bool_] | None]:
        """Bands as stored, (1 or 3, height, width), and validity, (height, width) or None for all.

        With a ``shape`` (rows, cols) the window, which may then begin and end between pixels, is
        brought to it, overviews used where the file has some: averaged, or the nearest pixels
        taken, as always of a palette.

        Raises:
            RasterError: the window cannot be read.
        """
        window = Window(col_off=col, row_off=row, width=width, height=height)
        nearest = self._palette is not None or not average
        if self._placed and shape is None:
            check_places(self._path, self.src, self._read, window, self._overview)
        heard = Heard()
        try:
            with rasterio.Env(**self._options), self._hearing(heard):
                stored = self._stored(
                    window, shape, Resampling.nearest if nearest else Resampling.average
                )
                mask = self._read_mask(window, shape) if self._mask else None
        except (*GDAL_ERRORS, MemoryError) as error:
            reason = " ".join(f"{error.__cause__ or error} {heard.trouble}".split())
            by_others = too_many_files(self._path, reason) or refusal(self._path, reason)
            raise by_others or RasterError(
                f"{self._path}: cannot be read at row {row}, col {col}, {height} x {width} px "
                f"({reason}); check the file with gdalinfo -checksum"
            ) from error
        if self._lost:
            raise refuse_lost(self._path, self._lost)
        bands = self._colours(stored)
        return bands, self._validity(bands, stored, mask)

    @contextlib.contextmanager
    def _hearing(self, heard: Heard) -> Iterator[None]:
        """Keeps what is said meanwhile: of a server, and of members that are opened."""
        if not self._hears:
            yield
            return
        with listening() as said:
            try:
                yield
            finally:
                heard.trouble = said.trouble
                if self._lazy:  # a read that fails may be tried again, with members open now
                    self._lost += said

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """RGB, (3, height, width) uint8, and validity, (height, width) or None for all.

        Raises:
            RasterError: the window cannot be read.
        """
        values, valid = self.values(row=row, col=col, height=height, width=width)
        return self.to_rgb(values), valid

    def _stored(self, window: Window, shape: tuple[int, int] | None, mixed: Resampling) -> Values:
        """The bands that are read, (n, h, w), in a type that holds them all."""
        # Rasterio reads bands of one type at once; a VRT's alpha is of bytes, whatever the others.
        groups = [self._read] if len(self._types) == 1 else [[band] for band in self._read]
        parts = []
        for group in groups:
            sized: dict[str, Any] = {"window": window}
            if shape is not None:
                sized |= {"out_shape": (len(group), *shape), "resampling": mixed}
            parts.append(self.src.read(group, **sized))
        stored: Values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return stored

    def _read_mask(self, window: Window, shape: tuple[int, int] | None) -> NDArray[np.uint8]:
        sized = {} if shape is None else {"out_shape": shape}
        mask: NDArray[np.uint8] = self.src.read_masks(self._bidx[0], window=window, **sized)
        return mask

    def to_rgb(self, values: Values) -> NDArray[np.uint8]:
        """Bands as stored, (1 or 3, h, w), as (3, h, w) uint8."""
        if self._palette is not None:
            indexes = np.minimum(values[0], len(self._palette) - 1)
            return np.moveaxis(self._palette[indexes, :3], 2, 0)
        if self._scale is None:
            return values  # type: ignore[return-value]
        if len(set(self._bidx)) == 1:
            grey = to_bytes(values[0], self._scale[0])
            return np.broadcast_to(grey, (3, *grey.shape))
        return np.stack([to_bytes(*pair) for pair in zip(values, self._scale, strict=True)])

    def _colours(self, stored: Values) -> Values:
        where = self._where[: len(self._bidx)]
        if where == [0, 1, 2]:
            colours = stored[:3]
        elif len(set(where)) == 1 and len(where) == 3:
            colours = np.broadcast_to(stored[where[0]], (3, *stored.shape[1:]))
        else:
            colours = stored[where]
        return colours.astype(self._colour_type, copy=False)

    def _validity(
        self, bands: Values, stored: Values, mask: NDArray[np.uint8] | None
    ) -> NDArray[np.bool_] | None:
        """All that makes a pixel invalid, put together; None when nothing can."""
        parts: list[NDArray[np.bool_]] = []
        if mask is not None:
            parts.append(np.not_equal(mask, 0))
        if self._nodata is not None:
            parts.append(~self._is_nodata(bands, self._nodata))
        if bands.dtype.kind == "f":
            parts.append(np.logical_and.reduce(np.isfinite(bands), axis=0))
        if self._alpha is not None:
            parts.append(stored[self._where[-1]] >= self._alpha[1])
        if self._palette is not None and (self._palette[:, 3] == 0).any():
            indexes = np.minimum(bands[0], len(self._palette) - 1)
            parts.append(self._palette[indexes, 3] != 0)
        return np.logical_and.reduce(parts) if parts else None

    @staticmethod
    def _is_nodata(bands: Values, nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
        """Integers: all bands have the value, since 0 in one band of three is a dark colour.

        Floats: any band has it, since the colour is then not known.
        """
        here = np.zeros(bands.shape, bool)
        for band, value, out in zip(bands, nodata, here, strict=True):
            if value is not None:
                with np.errstate(over="ignore"):  # beyond the type: infinity, which is invalid too
                    stored = bands.dtype.type(value)
                np.equal(band, stored, out=out)
        together = np.logical_or if bands.dtype.kind == "f" else np.logical_and
        return together.reduce(here, axis=0)  # type: ignore[no-any-return]
