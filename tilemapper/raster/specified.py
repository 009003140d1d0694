"""The pixels of an open file as its spec says: bands, nodata, masks, scaling."""

from __future__ import annotations

from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from tilemapper.raster.pixels import Pixels
from tilemapper.raster.spec import SourceSpec


def pixels_of(
    spec: SourceSpec, src: DatasetReader | WarpedVRT, overview: int | None = None
) -> Pixels:
    """The spec's bands of an open file; of a warped one, what warping left out is invalid."""
    warped = isinstance(src, WarpedVRT)
    return Pixels(
        src,
        path=spec.path,
        bidx=spec.bidx,
        palette=spec.palette,
        nodata=spec.nodata,
        mask=spec.mask or warped,
        alpha=None if warped else spec.alpha,
        scale=spec.scale,
        overview=overview,
    )
