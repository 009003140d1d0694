"""Creation options are held against what GDAL's drivers say that they know."""

import pytest

from tilemapper.errors import OptionError
from tilemapper.raster.creation_options import check_creation_options


@pytest.mark.parametrize(
    ("driver", "options", "said"),
    [
        ("COG", {"COMPRESS": "FOO"}, r"--co COMPRESS=FOO: one of NONE, LZW, .*DEFLATE.* is needed"),
        ("COG", {"COMPRES": "ZSTD"}, r"--co COMPRES=ZSTD: .*no option COMPRES, one of .*COMPRESS,"),
        ("COG", {"TILED": "YES"}, "driver COG has no option TILED"),
        ("COG", {"BLOCKSIZE": "abc"}, "a whole number is needed"),
        ("COG", {"BLOCKSIZE": "0"}, "128 or more is needed"),
        ("COG", {"BLOCKSIZE": "1000000"}, "8192 or less is needed"),
        ("COG", {"COMPRESS": "JPEG", "QUALITY": "500"}, "QUALITY=500: 100 or less is needed"),
        ("GTiff", {"COMPRESS": "JPEG", "JPEG_QUALITY": "0"}, "1 or more is needed"),
        ("GTiff", {"TILED": "YES", "BLOCKXSIZE": "9999"}, "8192 or less is needed"),
        ("COG", {"COMPRESS": "LERC", "MAX_Z_ERROR": "x"}, "MAX_Z_ERROR=x: a number is needed"),
        ("GTiff", {"LEVEL": "3"}, "driver GTiff has no option LEVEL"),
        ("GTiff", {"TILED": "perhaps"}, "YES or NO is needed"),
        ("COG", {"TILING_SCHEME": "GoogleMapsCompatible"}, "on its source's grid.* with gdalwarp"),
        ("COG", {"target_srs": "EPSG:4326"}, "target_srs=EPSG:4326: .*on its source's grid"),
        ("COG", {"NBITS": "4"}, "a map is one file of bytes"),
        ("GTiff", {"PIXELTYPE": "SIGNEDBYTE"}, "a map is one file of bytes"),
        ("GTiff", {"PROFILE": "BASELINE"}, "with its georeferencing and tags"),
        ("GTiff", {"TFW": "YES"}, "a map is one file"),
    ],
)
def test_unknown_names_and_values_are_one_line(driver, options, said):
    with pytest.raises(OptionError, match=said) as caught:
        check_creation_options(driver, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("COG", {"compress": "jpeg", "Quality": "90", "SPARSE_OK": "true", "NUM_THREADS": "2"}),
        ("COG", {"PREDICTOR": "2", "OVERVIEWS": "none", "BLOCKSIZE": "256"}),
        ("COG", {"COMPRESS": "LERC", "MAX_Z_ERROR": "0.5", "GEOTIFF_VERSION": "1.1"}),
        ("GTiff", {"COMPRESS": "LZW", "TILED": "NO", "ALPHA": "YES", "BIGTIFF": "IF_SAFER"}),
        ("GTiff", {"nbits": "8", "profile": "gdalgeotiff", "TFW": "no"}),
    ],
)
def test_what_gdal_knows_is_taken(driver, options):
    check_creation_options(driver, options)
