"""Creation options held against GDAL's own list of what a driver knows, before any work."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from xml.etree import ElementTree

import rasterio
import rasterio._env

from tilemapper.errors import OptionError
from tilemapper.raster.encode import encoding_of

# What GDAL's list does not bound: a quality of 500 is left out without a word, and file blocks too
# large for memory end the process. 16 is what TIFF wants of their sides.
_BOUNDS = {
    "QUALITY": (1, 100),
    "OVERVIEW_QUALITY": (1, 100),
    "JPEG_QUALITY": (1, 100),
    "WEBP_LEVEL": (1, 100),
    "BLOCKSIZE": (16, 8192),
    "BLOCKXSIZE": (16, 8192),
    "BLOCKYSIZE": (1, 8192),
}
# What makes another raster than was rendered, and the values at which it does not.
_OTHER_RASTER: dict[str, tuple[str, ...]] = {
    "NBITS": ("8",),
    "PIXELTYPE": ("DEFAULT",),
    "PROFILE": ("GDALGEOTIFF",),
    "TARGET_SRS": (),
    "TFW": ("NO", "FALSE", "OFF", "0"),
    "TILING_SCHEME": ("CUSTOM",),
}
_BOOLEANS = ("YES", "NO", "TRUE", "FALSE", "ON", "OFF", "1", "0")


def check_creation_options(driver: str, options: Mapping[str, str]) -> None:
    """Refuses what GDAL would warn of and leave out, take wrongly, or make another raster by.

    A trial write instead would end the process: GDAL 3.10 does so at ``BLOCKSIZE=0``.

    Raises:
        OptionError: the driver has no such option, or the option no such value.
    """
    if driver == "COG" and encoding_of(options) is not None:
        return  # written without GDAL's driver
    known = _known_options(driver)
    if not known:
        return
    for key, value in options.items():
        option = known.get(key.upper())
        if option is None:
            raise OptionError(
                f"--co {key}={value}: driver {driver} has no option {key}, one of "
                f"{', '.join(sorted(known))} is needed"
            )
        given = str(value).strip()
        fault = _fault(option, given)
        if fault:
            raise OptionError(f"--co {key}={value}: {fault} is needed by driver {driver}")
        harmless = _OTHER_RASTER.get(key.upper())
        if harmless is not None and given.upper() not in harmless:
            raise OptionError(
                f"--co {key}={value}: a map is one file of bytes on its source's grid, with its "
                "georeferencing and tags; leave this out, and convert the map with gdalwarp or "
                "gdal_translate"
            )


def _known_options(driver: str) -> dict[str, ElementTree.Element]:
    """GDAL's descriptions by option name; none where its library cannot be reached.

    rasterio does not hand them out, but its modules are linked to the GDAL that it uses.
    """
    try:
        gdal = ctypes.CDLL(rasterio._env.__file__)
        by_name, item = gdal.GDALGetDriverByName, gdal.GDALGetMetadataItem
    except (OSError, AttributeError):
        return {}
    by_name.argtypes, by_name.restype = [ctypes.c_char_p], ctypes.c_void_p
    item.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    item.restype = ctypes.c_char_p
    with rasterio.Env():  # registers the drivers
        found = by_name(driver.encode())
        text = item(found, b"DMD_CREATIONOPTIONLIST", None) if found else None
    if not text:
        return {}
    return {option.get("name", "").upper(): option for option in ElementTree.fromstring(text)}


def _fault(option: ElementTree.Element, value: str) -> str:
    """What the option needs in place of the value; empty when the value will do."""
    kind = option.get("type")
    if kind == "string-select":
        choices = [choice.text or "" for choice in option]
        aliases = [choice.get("alias", "") for choice in option]
        same = value.upper() in [name.upper() for name in (*choices, *aliases) if name]
        return "" if same else f"one of {', '.join(choices)}"
    if kind == "boolean":
        return "" if value.upper() in _BOOLEANS else "YES or NO"
    if kind not in ("int", "float"):
        return ""
    number = r"[+-]?\d+" if kind == "int" else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
    if not re.fullmatch(number, value):
        return "a whole number" if kind == "int" else "a number"
    bounds = _BOUNDS.get(option.get("name", "").upper(), (None, None))
    least, most = option.get("min", bounds[0]), option.get("max", bounds[1])
    if least is not None and float(value) < float(least):
        return f"{least} or more"
    if most is not None and float(value) > float(most):
        return f"{most} or less"
    return ""
