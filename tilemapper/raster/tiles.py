"""A raster seen on another raster's grid, and small georeferenced RGB tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from tilemapper.errors import RasterError, TilemapperError, too_many_files
from tilemapper.raster.answers import refusal
from tilemapper.raster.atomic import write_bytes_atomic
from tilemapper.raster.closing import Closing
from tilemapper.raster.opening import GDAL_ERRORS, no_way, open_raster


class WarpedRgb(Closing):
    """An RGB or paletted raster of bytes, warped onto a grid; close it, or use ``with``.

    Args of the constructor:
        path: the raster.
        crs_wkt, transform, height, width: the grid.
        resampling: "nearest" keeps the colours of a map, "bilinear" and "average" mix them.

    Raises:
        RasterError: it has no CRS or one that cannot be transformed to the grid's, lies nowhere, or
            is neither RGB bytes nor paletted.
    """

    def __init__(
        self,
        path: str,
        *,
        crs_wkt: str,
        transform: Affine,
        height: int,
        width: int,
        resampling: str = "nearest",
    ) -> None:
        self.path = path
        self._src = open_raster(path)
        try:
            self._colours = self._colour_table()
            nodata = self._src.nodata
            self._vrt = WarpedVRT(
                self._src,
                crs=CRS.from_wkt(crs_wkt),
                transform=transform,
                height=height,
                width=width,
                # Classes must not be mixed, whatever is asked for.
                resampling=Resampling.nearest
                if self._colours is not None
                else Resampling[resampling],
                add_alpha=nodata is None and ColorInterp.alpha not in self._src.colorinterp,
            )
        except BaseException as error:
            crs = self._src.crs
            self._src.close()
            if isinstance(error, TilemapperError) or not isinstance(error, GDAL_ERRORS):
                raise
            raise RasterError(
                f"{path}: cannot be laid on the imagery's grid ({no_way(crs, crs_wkt, error)}); "
                "check CRS and transform of both with gdalinfo, correct them with gdal_edit"
            ) from error

    def _colour_table(self) -> NDArray[np.uint8] | None:
        src = self._src
        if src.crs is None:
            raise RasterError(f"{self.path}: no CRS found, one is needed; assign it with gdal_edit")
        if src.dtypes[0] == "uint8" and src.count >= 3:
            return None
        if src.dtypes[0] != "uint8" or src.colorinterp[0] != ColorInterp.palette:
            raise RasterError(
                f"{self.path}: {src.count} band(s) of {src.dtypes[0]} found, RGB bytes or a "
                "palette are needed; convert it with gdal_translate"
            )
        table = np.zeros((256, 3), np.uint8)
        for value, colour in src.colormap(1).items():
            table[value] = colour[:3]
        return table

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) uint8 and validity (height, width) of a window of the grid.

        Raises:
            RasterError: the window cannot be read.
        """
        window = Window(col_off=col, row_off=row, width=width, height=height)
        try:
            valid = self._vrt.dataset_mask(window=window) > 0
            if self._colours is not None:
                return self._colours[self._vrt.read(1, window=window)], valid
            bands = self._vrt.read([1, 2, 3], window=window)
        except RasterioError as error:
            by_others = too_many_files(self.path, str(error)) or refusal(self.path, str(error))
            raise by_others or RasterError(
                f"{self.path}: cannot be read at row {row}, column {col} of the imagery's grid "
                f"({error}); check the file with gdalinfo -checksum"
            ) from error
        return np.ascontiguousarray(bands.transpose(1, 2, 0)), valid

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        self._vrt.close()
        self._src.close()


def write_tile(path: Path, pixels: NDArray[np.uint8], *, crs_wkt: str, transform: Affine) -> None:
    """Writes (h, w, 3) uint8 as a GeoTIFF, whole or not at all.

    Raises:
        DiskFullError: the disk is full.
        TargetError: the path cannot be written.
    """
    height, width = pixels.shape[:2]
    profile = {
        "driver": "GTiff", "count": 3, "dtype": "uint8", "height": height, "width": width,
        "crs": CRS.from_wkt(crs_wkt), "transform": transform, "photometric": "RGB",
        "interleave": "pixel", "compress": "DEFLATE", "predictor": 2,
    }  # fmt: skip
    # On a full disk GDAL may close a file without an error, so the bytes are written here.
    with MemoryFile() as file:
        with file.open(**profile) as dst:
            dst.write(pixels.transpose(2, 0, 1))
        write_bytes_atomic(path, file.read())
