"""A finished map as a PNG, for those who want a picture."""

from __future__ import annotations

import contextlib
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from tilemapper.errors import TargetError
from tilemapper.raster.opening import open_raster
from tilemapper.serve.limits import TooLargeError


def write_png(source: Path, target: Path, *, most_pixels: int) -> None:
    """Writes a map as a PNG, row by row; masked pixels become transparent.

    Raises:
        TooLargeError: it has more than ``most_pixels``, which few programs open as a PNG.
        TargetError: it cannot be written.
    """
    part = target.with_suffix(".part")
    with rasterio.Env(GDAL_PAM_ENABLED=False), open_raster(str(source)) as src:
        if src.height * src.width > most_pixels:
            raise TooLargeError(
                f"{src.width} x {src.height} px are more than a PNG of {most_pixels / 1e6:.0f} "
                "million; download the GeoTIFF"
            )
        masked = any("per_dataset" in flag.name for flag in src.mask_flag_enums[0])
        try:
            with contextlib.ExitStack() as stack:
                opened = stack.enter_context(WarpedVRT(src, add_alpha=True)) if masked else src
                copy(opened, part, driver="PNG", zlevel=6)
        except (RasterioError, OSError) as error:
            part.unlink(missing_ok=True)
            raise TargetError(f"PNG: cannot be written ({error}); make room on the disk") from error
    part.replace(target)
