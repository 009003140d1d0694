"""The source view: any supported raster as RGB bytes and validity at the model's resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import RasterError
from tilemapper.raster.area import Area
from tilemapper.raster.closing import Closing
from tilemapper.raster.identity import check_identity
from tilemapper.raster.inspecting import inspect_source
from tilemapper.raster.opening import open_raster
from tilemapper.raster.resample import resample_window
from tilemapper.raster.spec import SourceOptions, SourceSpec, Warp
from tilemapper.raster.specified import pixels_of
from tilemapper.raster.tone import apply_tone, tone_table

__all__ = ["SourceOptions", "SourceSpec", "SourceView", "Warp", "inspect_source"]


class SourceView(Closing):
    """A source opened from its spec; one for each thread. Close it, or use ``with``.

    Raises:
        RasterError: the file is gone, changed since the spec was made, or cannot be opened.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self.height, self.width = spec.height, spec.width
        self._area = None if spec.aoi is None else Area(spec.aoi)
        self._tone = None if spec.tone is None else tone_table(spec.tone)
        self._file = open_raster(spec.path, allow_drivers=(spec.driver,))
        try:
            check_identity(spec.path, self._file, spec.identity)
            self._pixels = pixels_of(spec, self._file)
        except BaseException:
            self._file.close()
            raise

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB, (height, width, 3) uint8, and validity, (height, width), of a window of the grid.

        A pixel has the same value whatever the window. The colour of invalid pixels means nothing.
        The arrays may be views that are not contiguous: bytes of three bands are not moved.

        Raises:
            RasterError: the window reaches out of the grid, or cannot be read.
        """
        if row < 0 or col < 0 or row + height > self.height or col + width > self.width:
            raise RasterError(
                f"{self.spec.path}: window at row {row}, col {col}, {height} x {width} px reaches "
                f"out of the {self.height} x {self.width} px"
            )
        row, col = row + self.spec.crop[0], col + self.spec.crop[1]
        warp = self.spec.warp
        if warp is None:
            rgb, valid = self._pixels.read(row=row, col=col, height=height, width=width)
        else:
            rgb, valid = resample_window(
                lambda r, c, h, w: self._pixels.read(row=r, col=c, height=h, width=w),
                row=row,
                col=col,
                height=height,
                width=width,
                steps=(warp.row_step, warp.col_step),
                size=(self._pixels.height, self._pixels.width),
            )
        if self._tone is not None:
            rgb = apply_tone(rgb, self._tone)
        return np.moveaxis(rgb, 0, 2), np.ones((height, width), bool) if valid is None else valid

    def wanted(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Pixels of a window that lie in ``--mask``, (height, width); None when there is none."""
        if self._area is None:
            return None
        return self._area.inside(row=row, col=col, height=height, width=width)

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        self._file.close()
