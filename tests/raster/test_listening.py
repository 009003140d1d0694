import logging
import threading

import pytest

from tilemapper.raster.listening import listening

LOG = logging.getLogger("rasterio._env")
LOST = "TIFFFetchDirectory:a.tif: Can not read TIFF directory count"


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@pytest.fixture
def log():
    handler, level = Kept(), LOG.level
    LOG.addHandler(handler)
    yield handler.said
    LOG.removeHandler(handler)
    LOG.setLevel(level)


def signal(message):
    """As rasterio passes on what GDAL signals."""
    LOG.info("GDAL signalled an error: err_no=%r, msg=%r", 1, message)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR, logging.DEBUG])
def test_it_hears_what_is_lost_and_the_log_says_no_more_than_before(log, level):
    LOG.setLevel(level)
    root = logging.getLogger().getEffectiveLevel()
    with listening() as heard:
        signal(LOST)
        signal("PROJ: something else")
        LOG.warning("a warning")
    assert heard == [f"'{LOST}'"]
    signal(LOST)
    assert heard == [f"'{LOST}'"] and LOG.level == level and not LOG.filters
    loud = (level or root) <= logging.INFO
    assert ("a warning" in log) == ((level or root) <= logging.WARNING)
    assert sum("signalled" in line for line in log) == (3 if loud else 0)


def test_each_thread_hears_its_own():
    inside, out = threading.Barrier(2), []

    def other():
        with listening() as heard:
            inside.wait()  # both listen
            signal("TIFFReadDirectory:theirs")
            inside.wait()
        out.append(heard)

    thread = threading.Thread(target=other)
    thread.start()
    with listening() as heard:
        inside.wait()
        signal("TIFFReadDirectory:mine")
        inside.wait()
    thread.join()
    assert heard == ["'TIFFReadDirectory:mine'"] and out == [["'TIFFReadDirectory:theirs'"]]
    assert not LOG.filters


@pytest.mark.parametrize("by", ["disable", "configuration"])
def test_it_hears_where_a_program_has_switched_its_logs_off(log, by):
    try:
        if by == "disable":
            logging.disable(logging.CRITICAL)
        else:
            LOG.disabled = True  # as logging.config does with every log that it is not told of
        with listening() as heard:
            signal(LOST)
            logging.getLogger("rasterio._err").info("GDAL signalled an error: msg=%r", LOST)
        assert heard == [f"'{LOST}'"] * 2 and log == []
        assert LOG.disabled == (by == "configuration") and not LOG.isEnabledFor(logging.ERROR)
    finally:
        logging.disable(logging.NOTSET)
        LOG.disabled = False
