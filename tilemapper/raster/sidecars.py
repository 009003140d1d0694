"""The files that GDAL opens beside a raster without being asked.

``x.tif.msk`` and ``x.tif.ovr`` are opened with any driver, so a VRT of that name would read other
files and URLs; an ``.aux.xml`` can name an overview file anywhere. Masks, overviews, control
points and statistics are wanted, redirections are not. The same metadata inside a TIFF does the
same.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from rasterio.io import DatasetReader

from tilemapper.errors import RasterError
from tilemapper.raster.directories import MAX_METADATA_ITEMS, check_directories

MAX_AUX_BYTES = 16 * 2**20
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Domains of metadata in which no file can be named.
_PLAIN_DOMAINS = frozenset({"", "IMAGE_STRUCTURE", "RPC", "IMAGERY", "xml:ESRI"})
_MAX_DEPTH = 3
# What GDAL looks for beside a raster: after its whole name, and after its name without suffix.
_BESIDE = (".msk", ".MSK", ".ovr", ".OVR", ".aux.xml", ".AUX.XML", ".aux", ".AUX", ".wld", ".xml")
_INSTEAD = (
    ".aux", ".AUX", ".tfw", ".TFW", ".tifw", ".wld", ".WLD", ".tab", ".TAB", ".prj", ".xml",
    ".imd", ".IMD", ".rpb", ".RPB", ".pvl", "_rpc.txt", "_RPC.TXT", "_metadata.txt", ".pgw",
    ".jgw", ".j2w",
)  # fmt: skip


def check_sidecars(path: str, depth: int = 0) -> None:
    """Looks at masks, overviews and ``.aux.xml`` beside a local raster, and at theirs.

    Raises:
        RasterError: one of them is of a kind that could pull other files in.
    """
    stem = str(Path(path).with_suffix(""))
    for name in (*(path + ending for ending in _BESIDE), *(stem + ending for ending in _INSTEAD)):
        # GDAL would open a pipe, and wait for its other end for ever.
        if Path(name).exists() and not (Path(name).is_file() or Path(name).is_dir()):
            raise RasterError(f"{name}: is no regular file; remove or rename it")
    for ending in (".msk", ".MSK", ".ovr", ".OVR"):
        sidecar = Path(path + ending)
        if not sidecar.is_file():
            continue
        if not _begins_with(sidecar, _TIFF):
            raise RasterError(
                f"{sidecar}: masks and overviews beside a raster must be TIFF files, this is none; "
                "remove or rename it"
            )
        check_directories(str(sidecar))
        if depth < _MAX_DEPTH:
            check_sidecars(str(sidecar), depth + 1)
    for name in {path + ".aux", path + ".AUX", stem + ".aux", stem + ".AUX"}:
        if _begins_with(Path(name), (b"EHFA_HEADER_TAG",)):
            raise RasterError(f"{name}: old Erdas sidecars are not read; remove or rename it")
    if Path(path + ".aux.xml").is_file():
        _check_aux_xml(Path(path + ".aux.xml"))


def check_metadata(src: DatasetReader, path: str) -> None:
    """Refuses metadata inside a raster by which GDAL would open another file as its overview.

    Raises:
        RasterError: there is such metadata.
    """
    for domain in ("OVERVIEWS", "ProxyOverviewRequest"):
        if src.tags(ns=domain):
            raise RasterError(
                f"{path}: metadata domain {domain} names another file, which is not opened; copy "
                "the raster with gdal_translate -nomd"
            )


def _begins_with(file: Path, signatures: tuple[bytes, ...]) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(16).startswith(signatures)


def _check_aux_xml(sidecar: Path) -> None:
    """Refuses metadata domains other than plain ones: OVERVIEWS, for one, names files."""
    refusal = f"{sidecar}: {{}}; remove or rename it"
    if sidecar.stat().st_size > MAX_AUX_BYTES:
        raise RasterError(refusal.format(f"more than {MAX_AUX_BYTES >> 20} MiB of metadata"))
    try:
        tree = ElementTree.parse(sidecar)
    except ElementTree.ParseError as error:
        raise RasterError(refusal.format("is damaged XML")) from error
    if sum(1 for _ in tree.iter("MDI")) > MAX_METADATA_ITEMS:  # GDAL compares each with all others
        raise RasterError(refusal.format(f"more than {MAX_METADATA_ITEMS} items of metadata"))
    for metadata in tree.iter("Metadata"):
        domain = metadata.get("domain", "")
        if domain not in _PLAIN_DOMAINS:
            raise RasterError(refusal.format(f"metadata domain {domain!r} could name other files"))
