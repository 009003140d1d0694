"""What libtiff says of a directory that it could not read, and GDAL goes on without.

The directory of a mask or an overview lies where a server has to be asked once more. If that fails,
GDAL opens the raster all the same, as one without a mask, and tells its log alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

# rasterio's, to which it passes what GDAL signals; errors that GDAL goes on after are INFO there.
_LOG = logging.getLogger("rasterio._env")
_SAYS = ("TIFFFetchDirectory", "TIFFReadDirectory", "TIFFAdvanceDirectory")


class _Ear(logging.Filter):
    """Keeps what is said of directories, and lets through what would be logged without it."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.listening: dict[int, list[str]] = {}  # what each thread that listens has heard
        self.level = logging.NOTSET  # the log's own, and what is logged in effect, while some do
        self.effective = logging.WARNING

    def filter(self, record: logging.LogRecord) -> bool:
        heard = self.listening.get(threading.get_ident())
        said = "" if heard is None else " ".join(record.getMessage().split())
        if heard is not None and "signalled an error" in said:
            heard += [said.partition("msg=")[2]] if any(word in said for word in _SAYS) else []
        return record.levelno >= self.effective


_EAR = _Ear()


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """What libtiff says to this thread meanwhile of directories that cannot be read; not nested."""
    me = threading.get_ident()
    with _EAR.lock:
        if not _EAR.listening:
            _EAR.level, _EAR.effective = _LOG.level, _LOG.getEffectiveLevel()
            _LOG.setLevel(min(_EAR.effective, logging.INFO))
            _LOG.addFilter(_EAR)
        heard = _EAR.listening[me] = []
    try:
        yield heard
    finally:
        with _EAR.lock:
            del _EAR.listening[me]
            if not _EAR.listening:
                _LOG.removeFilter(_EAR)
                _LOG.setLevel(_EAR.level)
