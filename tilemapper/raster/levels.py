"""A raster at one of its levels: its own pixels, or those of an overview that it carries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.closing import Closing
from tilemapper.raster.identity import check_identity
from tilemapper.raster.opening import open_raster
from tilemapper.raster.spec import SourceSpec
from tilemapper.raster.specified import pixels_of


def overview_count(spec: SourceSpec) -> int:
    """How many overviews the file carries. Raises RasterError if it cannot be opened."""
    with open_raster(spec.path, allow_drivers=(spec.driver,)) as src:
        return len(src.overviews(spec.bidx[0]))


class LevelView(Closing):
    """The file's pixels, or an overview's, as RGB bytes; one for each thread.

    Args:
        spec: of the source at its own pixels: neither resampled, cropped nor toned.
        overview: counted from 0; None for the file's own pixels.

    Raises:
        RasterError: the file is gone, changed since the spec was made, or cannot be opened.
    """

    def __init__(self, spec: SourceSpec, overview: int | None = None) -> None:
        self._file = open_raster(spec.path, allow_drivers=(spec.driver,), overview=overview)
        try:
            if overview is None:
                check_identity(spec.path, self._file, spec.identity)
            self._pixels = pixels_of(spec, self._file, overview)
        except BaseException:
            self._file.close()
            raise
        self.height, self.width = self._pixels.height, self._pixels.width

    def read(
        self, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB, (height, width, 3) uint8, and validity, (height, width), of a window.

        Raises:
            RasterError: the window cannot be read.
        """
        rgb, valid = self._pixels.read(row=row, col=col, height=height, width=width)
        return np.moveaxis(rgb, 0, 2), np.ones((height, width), bool) if valid is None else valid

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        self._file.close()
