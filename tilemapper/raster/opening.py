"""Opening a raster that a stranger may have made: by its first bytes, and by driver name.

GDAL left alone tries some hundred drivers, and one of them (VRT) reads other files and URLs that
a file of 300 bytes names. So the driver is decided here, and files that GDAL would open beside
the raster (masks, overviews, ``.aux.xml``) are looked at first.
"""

from __future__ import annotations

import contextlib
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from tilemapper.errors import RasterError, TilemapperError, shortage, too_many_files
from tilemapper.raster.answers import refusal
from tilemapper.raster.directories import check_directories
from tilemapper.raster.drivers import DEFAULT_DRIVERS, driver_of
from tilemapper.raster.header import check_same
from tilemapper.raster.limits import check_header
from tilemapper.raster.listening import listening
from tilemapper.raster.sidecars import check_metadata, check_sidecars

REMOTE_SCHEMES = ("https://", "http://", "s3://")

_READ_OPTIONS = {
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    # A damaged JPEG otherwise reads as grey blocks, with a warning that nobody sees,
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
    # and a truncated PNG, where all of it is asked for, as whatever memory held.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Of servers, on which members of a local VRT may lie too.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",  # and more each time; left alone it begins with half a minute
    # Those that pass; 0 where nothing answers, as of a server that starts anew.
    "GDAL_HTTP_RETRY_CODES": "0,408,425,429,500,502,503,504",
}
# No probing of sidecars on a server, which also keeps what it says out of PAM.
_REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
# GDAL keeps what it has read of a server's files for as long as the process lives, their sizes too,
# and asks no more whether they have changed. With this, until they are closed.
_NOT_KEPT = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/"}
_opened: set[str] = set()  # remote paths, of which something may be kept
# rasterio lets some of GDAL's own errors out, which are not rasterio's.
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError, ValueError, AttributeError)
_warnings_lock = threading.Lock()


def no_way(crs: CRS | None, to_wkt: str, error: BaseException) -> str:
    """Which CRSs a raster cannot be warped between, and what GDAL says, on one line.

    GDAL may quote a CRS whole, which is longer than a page.
    """
    start = "no CRS" if crs is None else crs_name(crs.to_wkt())
    reason = textwrap.shorten(str(error), 120, placeholder=" ...")
    return f"from {start} to {crs_name(to_wkt)}: {reason}"


def crs_name(wkt: str) -> str:
    """The name of a CRS out of its WKT, of which a page is left else."""
    return textwrap.shorten(wkt.split('"')[1] if '"' in wkt else wkt, 60, placeholder=" ...")


def is_remote(path: str) -> bool:
    """Whether the path, as typed, names something on a server."""
    return path.startswith(REMOTE_SCHEMES)


def read_options(path: str) -> dict[str, str]:
    """GDAL's settings for opening and reading it; for ``rasterio.Env``."""
    # Of a VRT's members on servers nothing is kept: here nobody knows which those are.
    return _READ_OPTIONS | (_REMOTE_OPTIONS if is_remote(path) else _NOT_KEPT)


def forget(path: str) -> None:
    """Has a remote raster read anew that was opened in this process before; it may be another.

    To be called where a job begins: the openings of one job share what was read.

    Raises:
        RasterError: the server does not give it now; what was read of it may still be kept.
    """
    if path not in _opened:
        return
    try:
        with rasterio.Env(**_NOT_KEPT):
            _first_answers(path, "GTiff", None)[0].close()
    except GDAL_ERRORS as error:  # it may be of another kind, and is read anew all the same
        if (refused := refusal(path, str(error))) is not None:
            raise refused from error
    _opened.discard(path)


def gdal_name(path: str) -> str:
    """The path as rasterio and GDAL open it: a local name such as ``s3:a.tif`` is no address.

    Nor is ``GTIFF_DIR:1:a.tif`` the first image of another file.
    """
    return f"./{path}" if ":" in path and not (is_remote(path) or path.startswith("/")) else path


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """What the disk cannot give of a raster, or of a file beside it, in our words.

    Raises:
        ShortageError: there are too many open files.
        RasterError: in the place of any other OSError.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, TilemapperError):
            raise
        raise shortage(error) or RasterError(
            f"{error.filename or path}: cannot be read ({error.strerror or error}); check the disk "
            "and rights"
        ) from error


def open_raster(
    path: str, *, allow_drivers: Sequence[str] = (), overview: int | None = None
) -> DatasetReader:
    """An open data set, whose header promises nothing absurd.

    allow_drivers: GDAL's names of drivers beyond `DEFAULT_DRIVERS`, ``VRT`` for instance.
    overview: opens this overview in the raster's stead, counted from 0.

    Raises:
        RasterError: the file is missing, of another kind, damaged, or a bomb.
        ServerError: it is on a server that does not answer.
        ShortageError: there are too many open files.
    """
    if is_remote(path):
        return _open(path, [*DEFAULT_DRIVERS, *allow_drivers], overview)
    driver = driver_of(path)
    allowed = (*DEFAULT_DRIVERS, *allow_drivers)
    # Of the kinds that we do not know by their first bytes, those that the user names may try.
    unknown = [name for name in allow_drivers if name not in DEFAULT_DRIVERS]
    named = {name.casefold() for name in allowed}  # as GDAL compares them
    candidates = ([driver] if driver.casefold() in named else []) if driver else unknown
    if not candidates:
        kind = f"a {driver} file" if driver else "no raster of a known kind"
        way_out = f"--allow-driver {driver} if you trust it" if driver else "check the file"
        raise RasterError(f"{path}: is {kind}, needed is one of {', '.join(allowed)}; {way_out}")
    with reading(path):
        check_sidecars(path)
        if driver == "GTiff":
            check_directories(path)
    return _open(path, candidates, overview)


def _open(path: str, drivers: list[str], overview: int | None) -> DatasetReader:
    """Opens with the first driver that takes the file, and checks the header."""
    failures: list[Exception] = []
    for driver in drivers:
        try:
            src, lost = _first_answers(path, driver, overview)
        except GDAL_ERRORS as error:  # AttributeError: a header that rasterio cannot report
            failures.append(error)
            if refusal(path, str(error)) is not None:  # which any other driver would hear, too
                break
            continue
        try:
            if lost:
                raise refuse_lost(path, lost)
            check_header(src, path)
            check_metadata(src, path)
            if not is_remote(path):
                _check_again(path, src, overview)
        except TilemapperError:
            src.close()
            raise
        return src
    raise _refusal(path, drivers, failures) from failures[0]


def refuse_lost(path: str, lost: Sequence[str]) -> RasterError:
    """The error of a raster of which directories cannot be read, by what `listening` heard."""
    return RasterError(
        f"{path}: a mask or overview of it cannot be read ({lost[0]}); if the server "
        "was down for a moment run the same command again, else check it with gdalinfo"
    )


def _first_answers(path: str, driver: str, overview: int | None) -> tuple[DatasetReader, list[str]]:
    """The data set, and what libtiff says of directories of a remote one that cannot be read."""
    with listening() as heard:
        try:
            src = _open_with(path, driver, overview)
        except GDAL_ERRORS as error:
            if heard.trouble:  # else called a file of no known kind
                raise RasterioError(f"{error}; {heard.trouble}") from error
            raise
        try:
            # What is wrong with a CRS comes out at whatever is asked next.
            _ = src.crs, src.colorinterp
            if not is_remote(path):  # whose directories have been looked at
                return src, []
            with rasterio.Env(**read_options(path)):
                # For which GDAL looks at all of them; a container of others has no band.
                _ = src.mask_flag_enums, src.count and src.overviews(1)
        except GDAL_ERRORS:
            src.close()
            raise
    return src, heard


def _check_again(path: str, src: DatasetReader, overview: int | None) -> None:
    """Opens the file once more: a read that failed in silence fails in one opening only."""
    try:
        again = _open_with(path, src.driver, overview)
    except GDAL_ERRORS as error:
        raise _refusal(path, [src.driver], [error]) from error
    with again:
        check_same(path, src, again, overview=overview is not None)


def _refusal(path: str, drivers: Sequence[str], failures: Sequence[Exception]) -> TilemapperError:
    reason = "; ".join(dict.fromkeys(" ".join(str(error).split()) for error in failures))
    by_others = too_many_files(path, reason) or refusal(path, reason)
    return by_others or RasterError(
        f"{path}: cannot be opened as {' or '.join(drivers)} ({reason}); check it with gdalinfo"
    )


def _open_with(path: str, driver: str, overview: int | None) -> DatasetReader:
    options = {} if overview is None else {"overview_level": overview}
    with _warnings_lock, warnings.catch_warnings():
        # That there is no georeferencing is said by the source view, in our words.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(**read_options(path)):
            if is_remote(path):
                _opened.add(path)
            return rasterio.open(gdal_name(path), driver=driver, **options)
