"""A raster laid on another's grid: windows of it, and a small picture of all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from tilemapper.errors import RasterError
from tilemapper.raster.closing import Closing
from tilemapper.raster.geometry import stretched
from tilemapper.raster.opening import GDAL_ERRORS, no_way, open_raster
from tilemapper.raster.shrinking import shrunk
from tilemapper.raster.spec import SourceSpec
from tilemapper.raster.specified import pixels_of


@dataclass(frozen=True)
class Footing:
    """How a grid lies on a file's pixels: file row = row * row_step + row_first, likewise columns.

    Of grids that are neither turned nor in another CRS.
    """

    row_step: float = 1.0
    row_first: float = 0.0
    col_step: float = 1.0
    col_first: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether each pixel of the grid is a pixel of the file."""
        return self.row_step == self.col_step == 1 and (
            self.row_first.is_integer() and self.col_first.is_integer()
        )


class LaidView(Closing):
    """A raster as RGB bytes on a grid; close it, or use ``with``.

    Args of the constructor:
        spec: what `inspect_source` said of the raster with ``gsd="native"``.
        height, width: of the grid.
        footing: how the grid lies on the file's pixels; None to warp.
        crs_wkt, transform: of the grid; used to warp only.
        crisp: take the nearest pixel when warping, as maps want it; else colours are mixed.

    Raises:
        RasterError: the raster cannot be opened, or its CRS not be transformed to the grid's.
    """

    def __init__(
        self,
        spec: SourceSpec,
        *,
        height: int,
        width: int,
        footing: Footing | None,
        crs_wkt: str | None = None,
        transform: Affine | None = None,
        crisp: bool = False,
    ) -> None:
        self.spec, self.height, self.width = spec, height, width
        self._crisp = crisp or spec.palette
        self._footing, self._crs_wkt, self._transform = footing, crs_wkt, transform
        self._src = open_raster(spec.path, allow_drivers=(spec.driver,))
        try:
            self._direct = footing is not None and footing.whole
            self._file = pixels_of(spec, self._src)
            self._vrt = None if self._direct else self._warped(1, 1)
            self._pixels = self._file if self._vrt is None else pixels_of(spec, self._vrt)
        except BaseException:
            self._src.close()
            raise

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) uint8 and validity (height, width) of a window of the grid.

        Raises:
            RasterError: the window cannot be read.
        """
        if not self._direct or self._footing is None:
            rgb, kept = self._pixels.read(row=row, col=col, height=height, width=width)
            return np.moveaxis(rgb, 0, 2), np.ones((height, width), bool) if kept is None else kept
        out = np.zeros((height, width, 3), np.uint8)
        valid = np.zeros((height, width), bool)
        row, col = row + int(self._footing.row_first), col + int(self._footing.col_first)
        top, left = max(0, row), max(0, col)
        bottom = min(row + height, self._file.height)
        right = min(col + width, self._file.width)
        if top < bottom and left < right:
            rgb, kept = self._file.read(row=top, col=left, height=bottom - top, width=right - left)
            here = np.s_[top - row : bottom - row, left - col : right - col]
            out[here] = np.moveaxis(rgb, 0, 2)
            valid[here] = True if kept is None else kept
        return out, valid

    def picture(self, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """All of the grid averaged to a small picture, as `read` gives it.

        Raises:
            RasterError: the raster cannot be read.
        """
        foot = self._footing
        if foot is not None:
            end_row = self.height * foot.row_step + foot.row_first
            end_col = self.width * foot.col_step + foot.col_first
            rows, cols = (foot.row_first, end_row), (foot.col_first, end_col)
            return shrunk(self._file, rows=rows, cols=cols, height=height, width=width)
        with self._warped(self.height / height, self.width / width, height, width) as vrt:
            pixels = pixels_of(self.spec, vrt)
            rgb, kept = pixels.read(row=0, col=0, height=height, width=width)
        return np.moveaxis(rgb, 0, 2), np.ones((height, width), bool) if kept is None else kept

    def _warped(
        self, down: float, across: float, height: int | None = None, width: int | None = None
    ) -> WarpedVRT:
        """The file warped to the grid, or to one whose pixels span that many of the grid's."""
        assert self._transform is not None and self._crs_wkt is not None
        resampling = Resampling.average if max(down, across) > 1.5 else Resampling.bilinear
        has_alpha = ColorInterp.alpha in self._src.colorinterp
        try:
            return WarpedVRT(
                self._src,
                crs=CRS.from_wkt(self._crs_wkt),
                transform=stretched(self._transform, rows=down, cols=across),
                height=height or self.height,
                width=width or self.width,
                resampling=Resampling.nearest if self._crisp else resampling,
                add_alpha=self._src.nodata is None and not has_alpha,
            )
        except GDAL_ERRORS as error:  # as of a site's own CRS, from which no way is known
            raise RasterError(
                f"{self.spec.path}: cannot be laid on the other raster's grid "
                f"({no_way(self._src.crs, self._crs_wkt, error)}); "
                "give both a CRS that can be transformed to the other's, with gdalwarp or gdal_edit"
            ) from error

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        if self._vrt is not None:
            self._vrt.close()
        self._src.close()
