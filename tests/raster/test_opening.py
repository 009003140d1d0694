from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy

from tests.raster.made import city, write_raster
from tilemapper.errors import OptionError, RasterError
from tilemapper.raster import sidecars
from tilemapper.raster.drivers import driver_of
from tilemapper.raster.opening import is_remote, open_raster
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def vrt_of(path: str, size: int = 90) -> str:
    """A VRT whose three bands are the first of another file, be it a file or a URL."""
    band = (
        '<VRTRasterBand dataType="Byte" band="{}"><SimpleSource><SourceFilename '
        f'relativeToVRT="0">{path}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
    )
    bands = "".join(band.format(index) for index in (1, 2, 3))
    return f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{bands}</VRTDataset>'


def refusal(path: object, opened: str | None = None) -> str:
    """The message with which a path is refused; it has to be one line that names the path."""
    with pytest.raises(RasterError) as caught:
        open_raster(opened or str(path)).close()
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_what_is_no_raster_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "head.tif").write_bytes(b"II*\0\x08\0\0\0")
    os.mkfifo(tmp_path / "pipe.tif")
    assert "no such file" in refusal(tmp_path / "missing.tif")
    assert "folder" in refusal(tmp_path)
    assert "empty" in refusal(tmp_path / "empty.tif")
    assert "no raster of a known kind" in refusal(tmp_path / "text.tif")
    assert "cannot be opened as GTiff" in refusal(tmp_path / "head.tif")
    assert "no regular file" in refusal(tmp_path / "pipe.tif")
    assert "cannot be read" in refusal("nul\0.tif")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_refused(tmp_path: Path):
    path = Path(write_raster(tmp_path / "a.tif", city()))
    path.chmod(0)
    assert "rights" in refusal(path)


@pytest.mark.parametrize("path", ["/vsicurl/http://a/b.tif", "GTIFF_DIR:1:a.tif", "<VRTDataset/>"])
def test_names_that_only_gdal_understands_are_files_to_us(path: str):
    assert "no such file" in refusal(path)


@pytest.mark.parametrize("name", ["GTIFF_DIR:1:a.tif", "zip:b.tif", "s3:b.tif", "http:b.tif"])
def test_a_file_whose_name_reads_like_an_address_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """GDAL took the first for another file's first image, rasterio the others for addresses."""
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "a.tif", city(20, 30))
    write_raster(tmp_path / name, city(50, 40))
    with open_raster(name) as src:
        assert src.shape == (50, 40)


def test_only_typed_urls_are_remote():
    assert is_remote("https://a/b.tif") and is_remote("s3://a/b.tif")
    assert not is_remote("/vsicurl/https://a/b.tif") and not is_remote("a/s3:/b.tif")


def test_a_vrt_in_disguise_is_refused_and_read_only_when_allowed(tmp_path: Path):
    secret = write_raster(tmp_path / "secret.tif", city())
    disguised = tmp_path / "a.tif"
    disguised.write_text("\n  " + vrt_of(secret))
    assert "--allow-driver VRT" in refusal(disguised)
    with open_raster(str(disguised), allow_drivers=("VRT",)) as src:
        assert src.driver == "VRT"


def test_python_in_a_vrt_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    source = write_raster(tmp_path / "a.tif", city(90, 90))
    marker = tmp_path / "ran"
    code = (
        "import pathlib\ndef f(in_ar, out_ar, *args, **kwargs):\n"
        f"    pathlib.Path('{marker}').touch()\n"
    )
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        vrt_of(source).replace(
            '<VRTRasterBand dataType="Byte" band="1">',
            '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
            "<PixelFunctionType>f</PixelFunctionType>"
            "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
            f"<PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>",
        )
    )
    options = SourceOptions(allow_drivers=("VRT",))
    with pytest.raises(RasterError):
        inspect_source(str(vrt), options, None)
    assert not marker.exists()


def test_a_driver_that_gdal_has_not_is_refused_and_the_likely_ones_are_named(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    for name, way_out in (("NOPE", "see rio env --formats"), ("vrtt", "did you mean VRT?")):
        with pytest.raises(OptionError) as caught:
            inspect_source(path, SourceOptions(allow_drivers=("GIF", name)), None)
        said = str(caught.value)
        assert said.startswith(f"--allow-driver {name}: no driver of GDAL ")
        assert "VRT, GIF, BMP" in said and said.endswith(f"is needed; {way_out}")
    assert inspect_source(path, SourceOptions(allow_drivers=("GIF", "netCDF")), None).width == 130


def test_names_of_drivers_are_compared_as_gdal_compares_them(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    copy(path, tmp_path / "a.bin", driver="ENVI")
    (tmp_path / "a.bin.aux.xml").unlink()  # which GDAL wrote, and repeats what the header says
    copy(path, tmp_path / "a.vrt", driver="VRT")
    for name, kind in (("a.bin", "envi"), ("a.vrt", "vrt")):
        options = SourceOptions(allow_drivers=(kind,))
        assert inspect_source(str(tmp_path / name), options, None).driver == kind.upper()


@pytest.mark.parametrize("ending", [".msk", ".ovr", ".msk.ovr"])
def test_a_sidecar_that_is_no_tiff_is_refused(tmp_path: Path, ending: str):
    mask = np.ones((90, 130), bool)
    path = write_raster(tmp_path / "a.tif", city(), mask=mask, internal_mask=False)
    open_raster(path).close()
    Path(path + ending).write_text(vrt_of("/etc/hostname"))
    assert ending in refusal(path)


def test_an_aux_xml_that_the_disk_cannot_give_is_not_called_damaged(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", city())
    Path(path + ".aux.xml").write_text("<PAMDataset></PAMDataset>")

    def unreadable(_file):
        raise OSError(errno.EIO, "Input/output error", path + ".aux.xml")

    monkeypatch.setattr(sidecars.ElementTree, "parse", unreadable)
    with pytest.raises(
        RasterError, match=r"a\.tif\.aux\.xml: cannot be read \(Input/output error\)"
    ):
        open_raster(path)


def test_an_aux_xml_may_describe_but_not_redirect(tmp_path: Path):
    path = write_raster(tmp_path / "a.png", city(), driver="PNG")
    aux = Path(path + ".aux.xml")
    assert aux.exists()
    with open_raster(path) as src:
        assert src.crs.to_epsg() == 32618
    redirected = aux.read_text().replace(
        "</PAMDataset>",
        '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">b.vrt</MDI></Metadata></PAMDataset>',
    )
    aux.write_text(redirected)
    assert "OVERVIEWS" in refusal(path)
    aux.write_text("<PAMDataset>")
    assert "damaged XML" in refusal(path)


def test_metadata_inside_a_tiff_may_not_redirect(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", city())
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "b.vrt"))
    assert "OVERVIEWS" in refusal(path)


def test_the_driver_comes_from_the_bytes_not_the_name(tmp_path: Path):
    for driver in ("PNG", "JPEG", "GTiff"):
        path = write_raster(tmp_path / f"{driver}.bin", city(), driver=driver)
        assert driver_of(path) == driver
        with open_raster(path) as src:
            assert src.driver == driver


def test_a_huge_file_block_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=16384,
        width=16384,
        count=3,
        dtype="uint8",
        tiled=True,
        blockxsize=16384,
        blockysize=16384,
        interleave="pixel",
        compress="deflate",
        sparse_ok=True,
    ):
        pass
    assert "one file block holds 768 MiB" in refusal(path)


def test_a_small_file_that_unpacks_to_hundreds_of_gigabytes_is_refused(tmp_path: Path):
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=400_000,
        width=400_000,
        count=3,
        dtype="uint8",
        tiled=True,
        blockxsize=8192,
        blockysize=8192,
        sparse_ok=True,
    ):
        pass
    assert "looks like a bomb" in refusal(path)


def test_many_bands_are_refused(tmp_path: Path):
    path = write_raster(tmp_path / "a.tif", np.zeros((1200, 2, 2), np.uint8))
    assert "1200 bands" in refusal(path)


@pytest.mark.parametrize("driver", ["GTiff", "JPEG", "PNG"])
def test_a_truncated_file_ends_in_one_line(tmp_path: Path, driver: str):
    path = Path(write_raster(tmp_path / "a", city(500, 500), driver=driver))
    whole = path.read_bytes()
    for share in (0.02, 0.4, 0.8):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(RasterError) as caught:
            spec = inspect_source(str(path), SourceOptions(), None)
            with SourceView(spec) as view:
                view.read(row=0, col=0, height=500, width=500)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("ending", [".msk", ".aux.xml", ".ovr"])
def test_a_pipe_beside_a_raster_does_not_hang(tmp_path: Path, ending: str):
    path = write_raster(tmp_path / "a.tif", city())
    os.mkfifo(path + ending)
    assert "no regular file" in refusal(path + ending, opened=path)


@pytest.mark.parametrize("name", ["a.tfw", "a.wld"])
def test_nor_does_one_in_the_place_of_a_world_file(tmp_path: Path, name: str):
    path = write_raster(tmp_path / "a.tif", city())
    os.mkfifo(tmp_path / name)
    assert "no regular file" in refusal(tmp_path / name, opened=path)
