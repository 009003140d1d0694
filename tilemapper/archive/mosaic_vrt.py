"""The virtual raster of a mosaic, as GDAL's VRT driver reads it."""

from __future__ import annotations

import os
from pathlib import Path
from xml.sax.saxutils import escape

from tilemapper.archive.mosaic import Member, Mosaic
from tilemapper.raster.atomic import atomic_write

_NS = 10**18  # in 2001


def write_vrt(path: Path, mosaic: Mosaic) -> None:
    """Writes the virtual raster of a mosaic, with a time that its members decide.

    A source's time is part of a render's plan. With that of the moment, a run that goes on after a
    kill would find the blocks of another source, and no two runs would make the same bytes.

    Raises:
        TargetError, DiskFullError: it cannot be written.
    """
    with atomic_write(path) as part:
        part.write_bytes(vrt_text(mosaic).encode())
        time_ns = _NS + int(mosaic.version[:12], 16)  # three days at most
        os.utime(part, ns=(time_ns, time_ns))


def vrt_text(mosaic: Mosaic) -> str:
    """The virtual raster of a mosaic: the members' bands, and an alpha band of what they cover.

    Masked pixels of a member never hide valid ones of another.
    """
    height, width = mosaic.size
    first = mosaic.members[0]
    transform = mosaic.transform
    numbers = ", ".join(
        repr(v) for v in (transform.c, transform.a, 0.0, transform.f, 0.0, transform.e)
    )
    lines = [
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">',
        f"<!-- {mosaic.version} -->",
        f"<SRS>{escape(first.crs.to_wkt())}</SRS>",
        f"<GeoTransform>{numbers}</GeoTransform>",
    ]
    alpha = len(first.bands) + 1
    for position, (band, kind, colour) in enumerate(first.bands, 1):
        lines.append(f'<VRTRasterBand dataType="{kind}" band="{position}">')
        lines.append(f"<ColorInterp>{colour}</ColorInterp>")
        lines += [_source(mosaic, member, str(band)) for member in mosaic.members]
        lines.append("</VRTRasterBand>")
    lines.append(f'<VRTRasterBand dataType="Byte" band="{alpha}"><ColorInterp>Alpha</ColorInterp>')
    lines += [_source(mosaic, member, "mask,1") for member in mosaic.members]
    return "\n".join([*lines, "</VRTRasterBand>", "</VRTDataset>", ""])


def _source(mosaic: Mosaic, member: Member, band: str) -> str:
    row, col = mosaic.place(member)
    path = gdal_path(member.scene.path)
    size = f'xSize="{member.width}" ySize="{member.height}"'
    return (
        f'<ComplexSource><SourceFilename relativeToVRT="0" shared="0">{escape(path)}'
        f"</SourceFilename><SourceBand>{band}</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{col}" yOff="{row}" {size}/>'
        "<UseMaskBand>true</UseMaskBand></ComplexSource>"
    )


def gdal_path(path: str) -> str:
    """A path as GDAL takes it inside a VRT."""
    if path.startswith("s3://"):
        return "/vsis3/" + path.removeprefix("s3://")
    return (
        f"/vsicurl/{path}"
        if path.startswith(("https://", "http://"))
        else str(Path(path).absolute())
    )
