"""Cuts one output out of the map of a whole mosaic, pixel by pixel the same, and proves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tilemapper.archive.naming import layer_beside
from tilemapper.archive.part import Part, window_of
from tilemapper.errors import RasterError, StagingError
from tilemapper.raster.atomic import write_text_atomic
from tilemapper.raster.encode import is_lossless
from tilemapper.raster.gdal_writing import gdal_writes
from tilemapper.raster.geometry import shifted
from tilemapper.raster.opening import open_raster

STRIP_ROWS = 512


def cut(
    part: Part, target: Path, *, driver: str, options: Mapping[str, str], layer: str = "map"
) -> bool:
    """Writes a part of a mosaic's map, or of a layer of it; False if no valid pixel lies in it.

    Raises:
        RasterError: the mosaic's map cannot be read.
        TargetError, DiskFullError, StagingError: the part cannot be written, or reads back
            differently.
    """
    source = part.whole if layer == "map" else layer_beside(part.whole, layer)
    with open_raster(source) as whole:
        window = window_of(part, whole.transform, whole.height, whole.width)
        if window is None or not _any_valid(whole, window):
            return False
        virtual = target.with_suffix(".cut.vrt")
        write_text_atomic(virtual, _window_vrt(whole, source, window))
        plain = {"COMPRESS": "DEFLATE", "PREDICTOR": "2"}
        if driver == "COG":
            # Between two classes there is none that is their mean.
            mean = "NEAREST" if layer == "classes" else "AVERAGE"
            # Those of the whole may lie half a pixel beside the part's.
            own = {"OVERVIEWS": "IGNORE_EXISTING", "OVERVIEW_RESAMPLING": mean}
            plain |= {"LEVEL": "1", **own}
        else:
            plain |= {"TILED": "YES"}
        try:
            with (
                gdal_writes(target, "check render.co"),
                rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_VRT_ENABLE_PYTHON="NO"),
            ):
                rasterio.shutil.copy(
                    str(virtual), str(target), driver=driver,
                    **{"BIGTIFF": "IF_SAFER", **plain, **options},
                )  # fmt: skip
        finally:
            virtual.unlink(missing_ok=True)
        if is_lossless(options):
            _compare(whole, target, window)
        return True


def _strips(window: tuple[int, int, int, int]) -> list[Window]:
    row, col, height, width = window
    return [
        Window(col_off=col, row_off=row + at, width=width, height=min(STRIP_ROWS, height - at))
        for at in range(0, height, STRIP_ROWS)
    ]


def _any_valid(whole: DatasetReader, window: tuple[int, int, int, int]) -> bool:
    return any(bool(whole.dataset_mask(window=strip).any()) for strip in _strips(window))


def _compare(whole: DatasetReader, target: Path, window: tuple[int, int, int, int]) -> None:
    """Reads the part back: a full disk does not always fail a write."""
    row, col, *_ = window
    try:
        with open_raster(str(target)) as dst:
            for strip in _strips(window):
                own = Window(
                    col_off=strip.col_off - col, row_off=strip.row_off - row,
                    width=strip.width, height=strip.height,
                )  # fmt: skip
                same = np.array_equal(dst.read(window=own), whole.read(window=strip))
                valid = np.array_equal(
                    dst.dataset_mask(window=own), whole.dataset_mask(window=strip)
                )
                if not (same and valid):
                    raise StagingError(
                        f"{target}: reads back other than it was cut; check the disk"
                    )
    except RasterioError as error:
        raise RasterError(f"{target}: cannot be read back ({error}); check the disk") from error


def _window_vrt(whole: DatasetReader, path: str, window: tuple[int, int, int, int]) -> str:
    row, col, height, width = window
    transform = shifted(whole.transform, row=row, col=col)
    numbers = ", ".join(repr(value) for value in transform.to_gdal())
    size = f'xSize="{width}" ySize="{height}"'

    def source(band: Any) -> str:
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(str(Path(path).absolute()))}'
            f"</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="{col}" yOff="{row}" {size}/><DstRect xOff="0" yOff="0" {size}/>'
            "</SimpleSource>"
        )

    said = whole.tags() | {"TILEMAPPER_PIECE": f"row {row}, col {col}"}
    tags = "".join(f'<MDI key="{escape(key)}">{escape(value)}</MDI>' for key, value in said.items())
    names = ("Red", "Green", "Blue") if whole.count == 3 else (whole.colorinterp[0].name.title(),)
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{name}</ColorInterp>'
        f"{_colours(whole, name)}{source(band)}</VRTRasterBand>"
        for band, name in zip(whole.indexes, names, strict=True)
    )
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<SRS>{escape(whole.crs.to_wkt())}</SRS><GeoTransform>{numbers}</GeoTransform>"
        f'<Metadata>{tags}</Metadata>{bands}<MaskBand><VRTRasterBand dataType="Byte">'
        f"{source('mask,1')}</VRTRasterBand></MaskBand></VRTDataset>"
    )


def _colours(whole: DatasetReader, name: str) -> str:
    """The colours of a band of classes."""
    if name != "Palette":
        return ""
    rows = "".join(
        f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>'
        for _, (red, green, blue, alpha) in sorted(whole.colormap(1).items())
    )
    return f"<ColorTable>{rows}</ColorTable>"
