import errno
import os

import pytest
from rasterio._err import CPLE_AppDefinedError
from rasterio.errors import RasterioIOError

from tilemapper.errors import DiskFullError, TargetError
from tilemapper.raster.gdal_writing import gdal_writes


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_that_libtiff_only_prints_is_an_error(number, capfd):
    with (
        pytest.raises(DiskFullError, match=r"^map\.tif: .*; free some space"),
        gdal_writes("map.tif"),
    ):
        os.write(2, f"_tiffWriteProc: {os.strerror(number)}.\n".encode())
    assert capfd.readouterr().err == ""


def test_gdals_own_errors_become_one_of_ours():
    with pytest.raises(DiskFullError), gdal_writes("map.tif"):
        raise CPLE_AppDefinedError(1, 1, f"map.tif: {os.strerror(errno.ENOSPC)}")
    with (
        pytest.raises(TargetError, match=r"\(the cause\); check --co"),
        gdal_writes("m", "check --co"),
    ):
        raise RasterioIOError("the\ncause")
    # What rasterio makes of a failure of GDAL's that has no words, as of overviews of one pixel.
    with pytest.raises(TargetError, match=r"^m: GDAL cannot write it \(Unknown"), gdal_writes("m"):
        raise SystemError("Unknown GDAL Error")


def test_what_others_print_meanwhile_comes_out_at_the_end(capfd):
    with gdal_writes("map.tif"):
        os.write(2, b"a line of another thread\n")
    assert capfd.readouterr().err == "a line of another thread\n"
