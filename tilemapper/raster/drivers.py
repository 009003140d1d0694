"""Which of GDAL's drivers a file is for, by its first bytes, and which of them there are."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Sequence
from pathlib import Path

import rasterio

from tilemapper.errors import OptionError, RasterError, shortage

DEFAULT_DRIVERS = ("GTiff", "JPEG", "PNG", "JP2OpenJPEG")

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\0\0\0\x0cjP  ", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
    (b"<VRTDataset", "VRT"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"\x89HDF", "HDF5"),
    (b"CDF", "netCDF"),
    (b"NITF", "NITF"),
    (b"EHFA_HEADER_TAG", "HFA"),
    (b"SQLite format 3", "GPKG"),
)


def check_drivers(names: Sequence[str]) -> None:
    """Refuses a driver that this GDAL has not: left alone it would only never open anything.

    Raises:
        OptionError: it has not, in any case of letters.
    """
    if not names:
        return
    with rasterio.Env() as environment:  # registers the drivers
        known = environment.drivers()
    spelt = {driver.casefold(): driver for driver in known}
    for name in names:
        if name.casefold() in spelt:
            continue
        near = difflib.get_close_matches(name.casefold(), spelt, n=1, cutoff=0.7)
        usual = dict.fromkeys(driver for _, driver in _SIGNATURES if driver in known)
        way_out = f"did you mean {spelt[near[0]]}?" if near else "see rio env --formats"
        raise OptionError(
            f"--allow-driver {name}: no driver of GDAL {rasterio.__gdal_version__}, "
            f"{', '.join(usual)} or another of its {len(known)} is needed; {way_out}"
        )


def driver_of(path: str) -> str | None:
    """GDAL's name of the driver for a local file, from its first bytes; None if unknown.

    Raises:
        RasterError: there is no such file, or it is empty, a folder, or not to be read.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise RasterError(f"{path}: is a folder, a raster file is needed; name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise RasterError(f"{path}: is no regular file; copy it to one first")
        with Path(path).open("rb") as file:
            head = file.read(64)
    except RasterError:
        raise
    except FileNotFoundError as error:
        raise RasterError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise shortage(error) or RasterError(
            f"{path}: cannot be read ({reason}); check the path and rights"
        ) from error
    if not head:
        raise RasterError(f"{path}: the file is empty; copy or download it again")
    for signature, driver in _SIGNATURES:
        if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(signature) or head.startswith(
            signature
        ):
            return driver
    return None
