from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.testing import assert_array_equal
from rasterio.enums import ColorInterp

from tests.corpus.case import PIXELS
from tests.corpus.tiff import DOUBLE, MATRIX, PIXEL_SCALE, TIEPOINT, Fields, tiff
from tests.raster.made import city, placed, write_raster
from tilemapper.errors import OptionError, RasterError
from tilemapper.raster.geometry import to_ground
from tilemapper.raster.source import SourceOptions, SourceSpec, SourceView, inspect_source

GREY3 = (1, 1, 1)
# rasterio says so when such a raster is written.
UNPLACED = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def read(path, *, model_gsd_m=None, **options):
    """Spec, RGB and validity of the whole output grid."""
    spec = inspect_source(path, SourceOptions(**options), model_gsd_m)
    with SourceView(spec) as view:
        return spec, *view.read(row=0, col=0, height=view.height, width=view.width)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (100, 300), (257, 1000)])
def test_bytes_of_three_bands_come_out_as_they_are(tmp_path: Path, height: int, width: int):
    pixels = city(height, width)
    spec, rgb, valid = read(write_raster(tmp_path / "a.tif", pixels), model_gsd_m=0.9)
    assert_array_equal(rgb, np.moveaxis(pixels, 0, 2))
    assert valid.all() and spec.has_invalid is False and spec.warp is None
    assert spec.gsd_m == pytest.approx(0.9, rel=0.01)
    assert spec.fill == tuple(round(float(mean)) for mean in pixels.mean(axis=(1, 2)))


def test_a_spec_survives_json(tmp_path: Path):
    pixels = city(60, 70, "float32")
    path = write_raster(tmp_path / "a.tif", pixels, nodata=np.nan)
    spec = inspect_source(path, SourceOptions(bounds=(500_005, 4_499_980, 500_020, 4_499_990)), 2.0)
    again = SourceSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again.to_json() == spec.to_json()
    assert np.isnan(again.nodata[0]) and again.warp == spec.warp and again.scale == spec.scale


def test_bands_are_found_by_their_colour(tmp_path: Path):
    pixels = city(bands=4)
    order = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    path = write_raster(tmp_path / "a.tif", pixels, colorinterp=order)
    spec, rgb, valid = read(path)
    assert spec.bidx == (3, 2, 1) and spec.alpha is None and valid.all()
    assert_array_equal(rgb[..., 0], pixels[2])
    assert read(path, bidx=(4, 1, 1))[0].bidx == (4, 1, 1)
    assert_array_equal(read(path, bidx=(4, 1, 1))[1][..., 0], pixels[3])


def test_bands_without_colours_are_taken_in_order_and_said_so(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city(bands=5), photometric="MINISBLACK")
    spec = read(path)[0]
    assert spec.bidx == (1, 2, 3) and any("--bidx" in notice for notice in spec.notices)


@pytest.mark.parametrize("bands", [1, 2])
def test_grey_is_refused_unless_asked_for(tmp_path: Path, bands: int):
    pixels = city(bands=bands)
    path = write_raster(tmp_path / "a.tif", pixels)
    with pytest.raises(RasterError, match="--bidx 1,1,1"):
        read(path)
    rgb = read(path, bidx=GREY3)[1]
    assert_array_equal(rgb, np.moveaxis(pixels[[0, 0, 0]], 0, 2))


def test_a_band_that_is_not_there_is_refused(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    with pytest.raises(RasterError, match="band 7"):
        read(path, bidx=(1, 2, 7))


def test_complex_pixels_are_refused(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city(bands=1).astype("complex64"))
    with pytest.raises(RasterError, match="complex64"):
        read(path, bidx=GREY3)


@UNPLACED
@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
def test_a_palette_is_expanded_and_its_clear_entries_are_invalid(tmp_path: Path, driver: str):
    indexes = np.random.default_rng(0).integers(0, 3, (1, 40, 50), dtype=np.uint8)
    clear = 0 if driver == "PNG" else 255  # a TIFF palette has no alpha
    colours = {0: (1, 2, 3, 255), 1: (200, 100, 50, 255), 2: (9, 9, 9, clear)}
    path = write_raster(tmp_path / "a", indexes, colormap=colours, driver=driver)
    spec, rgb, valid = read(path)
    table = np.array([colours[i][:3] for i in range(3)])
    assert_array_equal(rgb, table[indexes[0]])
    assert_array_equal(valid, (indexes[0] != 2) | (clear == 255))
    assert spec.palette and (spec.has_invalid is False) is (clear == 255)


def test_an_alpha_band_says_what_is_valid(tmp_path: Path):
    pixels = city(bands=4)
    pixels[3] = np.where(pixels[3] > 100, 255, 0)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    spec, _, valid = read(path)
    assert_array_equal(valid, pixels[3] == 255)
    assert spec.has_invalid is None


@pytest.mark.parametrize(
    ("opaque", "dtype"),
    [
        *((opaque, "uint16") for opaque in (1, 100, 255, 4095, 65535)),
        *((opaque, "uint8") for opaque in (1, 100, 200, 255)),
        *((opaque, "float32") for opaque in (0.3, 1, 100, 255)),
    ],
)
def test_opaque_is_what_the_raster_uses_for_it(tmp_path: Path, opaque: float, dtype: str):
    pixels = city(dtype=dtype, bands=4)
    there = pixels[3] > 100
    pixels[3] = np.where(there, opaque, 0)
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    assert_array_equal(read(path)[2], there)


def test_opaque_is_looked_for_where_the_sample_shows_nothing_but_clear(tmp_path: Path):
    pixels = np.full((4, 1500, 1500), 80, np.uint8)
    pixels[3] = 0
    pixels[3, :10, 730:770], pixels[3, 10:20, 730:770] = 255, 40  # between the patches
    path = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    spec = inspect_source(path, SourceOptions(), None)
    assert spec.alpha == (4, 128)
    with SourceView(spec) as view:
        _, valid = view.read(row=0, col=0, height=100, width=1500)
    assert_array_equal(valid, pixels[3, :100] == 255)


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_bytes_of_which_few_bits_are_used_are_named_with_what_stretches_them(tmp_path: Path, bits):
    top = 2**bits - 1
    pixels = (city().astype(float) * top / 255).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", pixels, nbits=bits)
    spec, rgb, _ = read(path)
    assert_array_equal(rgb, pixels.transpose(1, 2, 0))  # as they are
    assert [f"--scale 0,{top}" in line for line in spec.notices] == [True] * (bits < 8)
    stretched, rgb, _ = read(path, scale=(0, top))
    assert stretched.notices == ()
    assert_array_equal(rgb, np.rint(pixels * (255 / top)).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.parametrize("internal", [True, False])
def test_internal_and_external_masks_say_what_is_valid(tmp_path: Path, internal: bool):
    mask = np.zeros((90, 130), bool)
    mask[5:50, 20:99] = True
    path = write_raster(tmp_path / "a.tif", city(), mask=mask, internal_mask=internal)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    spec, _, valid = read(path)
    assert_array_equal(valid, mask)
    assert spec.mask


def test_a_mask_overrules_the_declared_nodata_and_joins_the_asked(tmp_path: Path):
    pixels, mask = city(), np.ones((90, 130), bool)
    pixels[:, 10:20], mask[:5] = 0, False
    path = write_raster(tmp_path / "a.tif", pixels, mask=mask, nodata=0)
    assert_array_equal(read(path)[2], mask)
    asked = mask.copy()
    asked[10:20] = False
    assert_array_equal(read(path, nodata=0)[2], asked)


def test_nodata_in_all_three_bands_is_invalid_and_in_one_is_a_dark_colour(tmp_path: Path):
    pixels = city()
    pixels[:, 3:9] = 0
    pixels[0, 20] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    _, _, valid = read(path)
    assert_array_equal(valid, (pixels != 0).any(axis=0))
    assert valid[20].all() and not valid[3:9].any()
    asked = read(path, nodata=200)[2]
    assert asked[3:9].all()


def test_nodata_that_no_pixel_can_have_is_ignored(tmp_path: Path):
    spec, _, valid = read(write_raster(tmp_path / "a.tif", city()), nodata=-9999)
    assert valid.all() and spec.nodata is None and "-9999" in spec.notices[0]


def test_a_nodata_value_beyond_the_type_is_ignored_in_floats(tmp_path: Path):
    _, _, valid = read(write_raster(tmp_path / "a.tif", city(dtype="float32")), nodata=-1.7e308)
    assert valid.all()


@pytest.mark.parametrize("declared", [None, np.nan, -9999.0])
def test_nan_infinity_and_a_missing_band_are_invalid_in_floats(tmp_path: Path, declared):
    pixels = city(dtype="float32")
    pixels[0, 4], pixels[1, 5], pixels[2, 6] = np.nan, np.inf, -9999.0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=declared)
    expected = np.ones((90, 130), bool)
    expected[4:6] = False
    expected[6] = declared != -9999.0
    assert_array_equal(read(path)[2], expected)


def test_a_raster_without_a_valid_pixel_still_presents_itself(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", np.full((3, 50, 60), np.nan, "float64"))
    spec, _, valid = read(path, model_gsd_m=2.0)
    assert not valid.any() and any("no valid pixel" in notice for notice in spec.notices)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "int32", "float64"])
def test_other_types_are_scaled_by_one_pair_for_the_raster(tmp_path: Path, dtype: str):
    base = city(dtype="float64") - 120
    offset = 0 if dtype == "int8" else 1000
    pixels = (base * (1 if dtype == "int8" else 7) + offset).astype(dtype)
    spec, rgb, _ = read(write_raster(tmp_path / "a.tif", pixels))
    low, high = np.percentile(pixels.astype(float), (2, 98))
    assert spec.scale == ((low, high),) * 3
    expected = np.clip((pixels.astype(float) - low) / (high - low) * 255, 0, 255)
    assert np.abs(np.moveaxis(rgb, 2, 0) - expected).max() <= 0.5 + 1e-6


def test_scale_overrides_the_percentiles_for_bytes_too(tmp_path: Path):
    pixels = city()
    spec, rgb, _ = read(write_raster(tmp_path / "a.tif", pixels), scale=(50, 150))
    assert spec.scale == ((50, 150),) * 3
    assert_array_equal(rgb[..., 0], np.rint(np.clip((pixels[0] - 50.0) * 2.55, 0, 255)))


# 0.3 m pixels, turned by 30 degrees.
ROTATED = Affine(0.3 * 0.75**0.5, 0.15, 5e5, 0.15, -0.3 * 0.75**0.5, 45e5)


@pytest.mark.parametrize("gsd", ["native", 0.9, 0.31, 0.11])
@pytest.mark.parametrize("masked", [False, True])
def test_a_pixel_is_the_same_in_every_window(tmp_path: Path, gsd, masked: bool):
    mask = np.random.default_rng(1).random((90, 130)) > 0.1 if masked else None
    path = write_raster(tmp_path / "a.tif", city(), mask=mask, transform=ROTATED)
    spec, rgb, valid = read(path, gsd=gsd)
    rng = np.random.default_rng(2)
    with SourceView(spec) as view:
        for _ in range(40):
            row, col = rng.integers(0, view.height), rng.integers(0, view.width)
            height = int(rng.integers(1, view.height - row + 1))
            width = int(rng.integers(1, view.width - col + 1))
            here = np.s_[row : row + height, col : col + width]
            part, part_valid = view.read(row=row, col=col, height=height, width=width)
            assert_array_equal(part, rgb[here])
            assert_array_equal(part_valid, valid[here])


def test_rotated_sheared_and_south_up_transforms_are_kept_exactly(tmp_path: Path):
    for index, transform in enumerate(
        [ROTATED, Affine(0.9, 0.2, 5e5, 0.1, -0.9, 45e5), Affine(0.9, 0, 5e5, 0, 0.9, 45e5)]
    ):
        path = write_raster(tmp_path / f"{index}.tif", city(), transform=transform)
        assert read(path, gsd="native")[0].transform == tuple(transform)[:6]


def test_resampling_keeps_corner_and_rotation(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city(), transform=ROTATED)
    spec = read(path, model_gsd_m=0.9)[0]
    kept = Affine(*spec.transform)
    assert (kept.c, kept.f) == (ROTATED.c, ROTATED.f)
    stretch = [getattr(kept, term) / getattr(ROTATED, term) for term in "abde"]
    assert stretch == pytest.approx([3] * 4, rel=0.01)
    assert (spec.height, spec.width) == (30, 43) and spec.gsd_m == pytest.approx(0.9)
    assert any("m to 0.9 m a pixel, 130 x 90 to 43 x 30 px" in notice for notice in spec.notices)


@pytest.mark.parametrize("hidden", [0, 255])
def test_masked_pixels_leave_no_fringe(tmp_path: Path, hidden: int):
    pixels = np.full((3, 90, 90), 200, np.uint8)
    mask = np.ones((90, 90), bool)
    mask[:, :40], pixels[:, :, :40] = False, hidden
    for gsd in (0.45, 1.1, 2.5):
        path = write_raster(tmp_path / f"{gsd}.tif", pixels, mask=mask)
        _, rgb, valid = read(path, gsd=gsd)
        assert (rgb[valid] == 200).all()
        assert valid.mean() == pytest.approx(50 / 90, abs=0.02)


@pytest.mark.parametrize("off_by", [1.0, 1.09, 0.92])
def test_auto_keeps_pixels_within_ten_per_cent(tmp_path: Path, off_by: float):
    path = write_raster(tmp_path / "a.tif", city(), transform=placed(0.9 * off_by))
    assert read(path, model_gsd_m=0.9)[0].warp is None
    assert (read(path, gsd=0.9)[0].warp is None) is (off_by == 1.0)


def test_bounds_take_whole_pixels_and_leave_the_grid_alone(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    whole = read(path, gsd=1.8)
    left, top = 500_000 + 1.8 * 10.2, 4_500_000 - 1.8 * 5.7
    spec, rgb, _ = read(path, gsd=1.8, bounds=(left, top - 1.8 * 7, left + 1.8 * 12, top))
    assert (spec.crop, spec.height, spec.width) == ((5, 10), 8, 13)
    assert_array_equal(rgb, whole[1][5:13, 10:23])
    assert (
        spec.transform[2] == pytest.approx(500_000 + 18)
        and spec.transform[0] == (whole[0].transform[0])
    )


def test_bounds_of_the_raster_itself_are_the_whole_raster(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    with rasterio.open(path) as src:
        bounds = tuple(src.bounds)
    spec = read(path, bounds=bounds)[0]
    assert (spec.height, spec.width, spec.crop) == (90, 130, (0, 0))


def test_bounds_on_the_edges_of_pixels_take_no_pixel_more(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city(), transform=placed(0.1))
    for col in range(1, 100, 7):
        left, top = 500_000 + 0.1 * col, 4_500_000 - 0.1 * 3
        spec = read(path, bounds=(left, top - 0.1 * 4, left + 0.1 * 5, top))[0]
        assert (spec.crop, spec.height, spec.width) == ((3, col), 4, 5)


def test_bounds_beside_the_raster_are_refused(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    with pytest.raises(RasterError, match="lie beside the raster"):
        read(path, bounds=(0, 0, 10, 10))


@UNPLACED
def test_a_raster_without_georeferencing_keeps_its_pixels_and_says_so(tmp_path: Path):
    path = write_raster(tmp_path / "a.png", city(), driver="PNG", crs=None, transform=None)
    spec, rgb, _ = read(path, model_gsd_m=0.9)
    assert spec.crs_wkt is None and spec.gsd_m is None and spec.driver == "PNG"
    assert_array_equal(rgb, np.moveaxis(city(), 0, 2))
    assert "no georeferencing" in spec.notices[0]
    with pytest.raises(OptionError, match="--gsd native"):
        read(path, gsd=0.9)


@UNPLACED
def test_control_points_on_a_plane_place_a_raster_and_bent_ones_are_refused(tmp_path: Path):
    corners = [(0, 0), (0, 130), (90, 0), (90, 130), (40, 60)]
    for bend in (0, 30):
        points = [
            rasterio.control.GroundControlPoint(
                r, c, *to_ground(ROTATED, row=r + (bend if r == 40 else 0), col=c)
            )
            for r, c in corners
        ]
        path = write_raster(tmp_path / f"{bend}.tif", city(), transform=None, gcps=points)
        if bend:
            with pytest.raises(RasterError, match="gdalwarp -tps"):
                read(path)
            assert "no georeferencing" in read(path, gsd="native")[0].notices[0]
        else:
            assert read(path)[0].transform == pytest.approx(tuple(ROTATED)[:6])


def test_a_window_beyond_the_raster_is_refused(tmp_path: Path):
    spec = inspect_source(write_raster(tmp_path / "a.tif", city()), SourceOptions(), None)
    with SourceView(spec) as view, pytest.raises(RasterError, match="reaches out"):
        view.read(row=80, col=0, height=11, width=10)


def test_a_raster_that_changed_since_it_was_inspected_is_refused(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    spec = inspect_source(path, SourceOptions(), None)
    write_raster(tmp_path / "a.tif", city() // 2)
    with pytest.raises(RasterError, match="changed since"):
        SourceView(spec)


def test_an_unreadable_block_is_named(tmp_path: Path):
    path = Path(
        write_raster(
            tmp_path / "a.tif",
            city(1500, 1500),
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
        )
    )
    spec = inspect_source(str(path), SourceOptions(), None)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 40_000] = bytes(40_000)
    path.write_bytes(damaged)
    with SourceView(spec) as view, pytest.raises(RasterError, match="cannot be read at row"):
        for row in range(0, 1500, 192):
            view.read(row=row, col=0, height=min(192, 1500 - row), width=1500)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gsd": "fine"},
        {"gsd": -1.0},
        {"bidx": (1, 2)},
        {"bidx": (0, 1, 2)},
        {"scale": (5, 5)},
        {"bounds": (1, 1, 0, 2)},
    ],
)
def test_options_that_fit_no_raster_are_refused(wrong):
    with pytest.raises(OptionError):
        SourceOptions(**wrong)


@pytest.mark.parametrize(
    "matrix",
    [
        (0, 0, 0, 0),  # everything in one point
        (1, 1, 1, 1),  # in one line
        (float("nan"), 0, 0, -1),
        (float("inf"), 0, 0, -1),
    ],
)
def test_a_transform_that_places_nothing_is_refused_before_any_work(tmp_path: Path, matrix):
    a, b, d, e = map(float, matrix)
    path = tmp_path / "a.tif"
    numbers = (a, b, 0.0, 5e5, d, e, 0.0, 4e6, *(0.0,) * 7, 1.0)
    fields: Fields = {PIXEL_SCALE: None, TIEPOINT: None, MATRIX: (DOUBLE, numbers)}
    path.write_bytes(tiff(PIXELS, fields=fields))
    with pytest.raises(RasterError, match="puts all pixels in one line, or nowhere"):
        inspect_source(str(path), SourceOptions(), None)


def test_a_crs_that_makes_gdal_stumble_later_is_refused_at_once(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    aux = '<PAMDataset><SRS>PROJCS["",GEOGCS[""]]</SRS></PAMDataset>'
    Path(f"{path}.aux.xml").write_text(aux)
    with pytest.raises(RasterError, match="CONVERSION"):
        inspect_source(path, SourceOptions(), None)


@pytest.mark.parametrize("opaque", [255, 65535])
def test_an_alpha_of_another_type_than_the_colours_is_a_mask_all_the_same(tmp_path, opaque):
    """As a VRT may have it; rasterio reads no bands of two types at once."""
    pixels = city(20, 30)
    alpha = np.full((1, 20, 30), opaque, np.uint16)
    alpha[:, :5] = 0
    write_raster(tmp_path / "rgb.tif", pixels)
    write_raster(tmp_path / "alpha.tif", alpha)
    bands = [("Byte", "Red", "rgb.tif", 1), ("Byte", "Green", "rgb.tif", 2)]
    bands += [("Byte", "Blue", "rgb.tif", 3), ("UInt16", "Alpha", "alpha.tif", 1)]
    lines = [
        f'<VRTRasterBand dataType="{kind}" band="{at}"><ColorInterp>{colour}</ColorInterp>'
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for at, (kind, colour, name, band) in enumerate(bands, 1)
    ]
    text = f'<VRTDataset rasterXSize="30" rasterYSize="20">{"".join(lines)}</VRTDataset>'
    (tmp_path / "mixed.vrt").write_text(text)
    _, rgb, valid = read(str(tmp_path / "mixed.vrt"), allow_drivers=("VRT",))
    assert rgb.dtype == np.uint8
    assert_array_equal(valid, alpha[0] > 0)
    assert_array_equal(rgb[5:], np.moveaxis(pixels, 0, 2)[5:])
