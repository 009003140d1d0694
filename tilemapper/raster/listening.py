"""What GDAL tells its log alone: of directories that cannot be read, and of servers in trouble.

The directory of a mask or an overview lies where a server has to be asked once more. If that fails,
GDAL opens the raster all the same, as one without a mask. Where a server does not give the raster
itself, GDAL may call it one of no known kind.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Iterator

# rasterio's, to which it passes what GDAL signals: where something is asked, and where it is read.
# Errors that GDAL goes on after are INFO there.
_LOGS = (logging.getLogger("rasterio._env"), logging.getLogger("rasterio._err"))
_SAYS = ("TIFFFetchDirectory", "TIFFReadDirectory", "TIFFAdvanceDirectory")
_TROUBLE = re.compile(r"HTTP error code: \d+|response_code=\d+")


class Heard(list[str]):
    """What is said of directories that cannot be read; ``trouble``: a server's last answer."""

    trouble = ""


class _Ear(logging.Filter):
    """Keeps what is said of directories, and lets through what would be logged without it."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.listening: dict[int, Heard] = {}  # what each thread that listens has heard
        self.silenced: dict[str, bool] = {}  # whether the user has switched a log off

    def filter(self, record: logging.LogRecord) -> bool:
        heard = self.listening.get(threading.get_ident())
        said = "" if heard is None else " ".join(record.getMessage().split())
        if heard is not None and "signalled an error" in said:
            heard += [said.partition("msg=")[2]] if any(word in said for word in _SAYS) else []
        if heard is not None and (trouble := _TROUBLE.search(said)) is not None:
            heard.trouble = trouble[0]
        # What the class itself says of it, whose answer is not replaced.
        log = logging.getLogger(record.name)
        enabled = logging.Logger.isEnabledFor(log, record.levelno)
        return enabled and not self.silenced.get(record.name, False)

    def put_in(self) -> None:
        """Neither the level of a log nor `logging.disable` makes it deaf from here on."""
        for log in _LOGS:
            self.silenced[log.name], log.disabled = log.disabled, False
            log.isEnabledFor = functools.partial(_enabled, log)  # type: ignore[method-assign]
            log.addFilter(self)

    def take_out(self) -> None:
        """Leaves the logs as they were."""
        for log in _LOGS:
            log.removeFilter(self)
            del log.isEnabledFor
            log.disabled = self.silenced.pop(log.name)


_EAR = _Ear()


def _enabled(log: logging.Logger, level: int) -> bool:
    return level >= logging.INFO or logging.Logger.isEnabledFor(log, level)


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """What is said to this thread meanwhile; not nested."""
    me = threading.get_ident()
    with _EAR.lock:
        if not _EAR.listening:
            _EAR.put_in()
        heard = _EAR.listening[me] = Heard()
    try:
        yield heard
    finally:
        with _EAR.lock:
            del _EAR.listening[me]
            if not _EAR.listening:
                _EAR.take_out()
