"""What GDAL says of servers, in our words."""

from __future__ import annotations

import pytest
import rasterio

from tests.faults.server import serving
from tests.ports import held_ports
from tests.raster.made import city, write_raster
from tilemapper.errors import RasterError, ServerError
from tilemapper.raster import opening
from tilemapper.raster.answers import refusal
from tilemapper.raster.opening import forget, open_raster
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source


@pytest.mark.parametrize(
    ("said", "kind", "shown"),
    [
        ("<Error><Code>SlowDown</Code></Error>; HTTP response code: 503", ServerError, "503"),
        ("HTTP response code: 500", ServerError, "500"),
        ("HTTP response code: 429", ServerError, "429"),
        ("HTTP response code: 404", RasterError, "404"),
        ("<html>; HTTP response code: 403", RasterError, "403"),
        ("CURL error: Empty reply from server; '/vsis3/a' does not exist", ServerError, "Empty"),
        ("IReadBlock failed HTTP error code: 0", ServerError, "no answer"),
        ("IReadBlock failed response_code=404", RasterError, "404"),
        ("CURL error: Could not resolve host: a.example; HTTP error code: 0", RasterError, "a.ex"),
        ("CURL error: Could not resolve host: nowhere.example", RasterError, "nowhere.example"),
    ],
)
def test_a_servers_words_say_whether_another_answer_may_come(said, kind, shown):
    error = refusal("https://h.org/a.tif", said)
    assert type(error) is kind
    assert error.exit_code == (75 if kind is ServerError else 1)
    assert shown in str(error) and "<" not in str(error) and "vsis3" not in str(error)


def test_what_is_said_of_a_file_is_no_servers_refusal():
    assert refusal("a.tif", "TIFFReadEncodedTile: unexpected EOF") is None


def test_servers_that_do_not_give_a_raster_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    (tmp_path / "shut").touch()
    write_raster(tmp_path / "city.tif", city())
    opened, tried = opening._open_with, []
    monkeypatch.setattr(opening, "_open_with", lambda *a: tried.append(a) or opened(*a))
    with serving(tmp_path) as url:
        with pytest.raises(ServerError, match=r"HTTP (response|error) code: 500.*again later"):
            open_raster(f"{url}/down/0/city.tif")
        with pytest.raises(ServerError, match=r"HTTP error code: 500.*again later"):
            open_raster(f"{url}/shut/0/city.tif")
        assert len(tried) == 2  # no other driver, which would hear the same
        with pytest.raises(RasterError, match=r"HTTP response code: 404.*check the address") as no:
            open_raster(f"{url}/good/0/none.tif")
        assert not isinstance(no.value, ServerError)
    with held_ports(1) as (port,), pytest.raises(ServerError, match="CURL error"):
        open_raster(f"http://127.0.0.1:{port}/city.tif")


def test_a_raster_is_not_read_from_the_cache_since_its_server_was_down_when_a_job_began(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    path = tmp_path / "city.tif"
    write_raster(path, city())
    with serving(tmp_path) as url:
        address = f"{url}/shut/0/city.tif"
        open_raster(address).close()
        write_raster(path, 255 - city())
        (tmp_path / "shut").touch()
        with pytest.raises(ServerError):
            forget(address)
        (tmp_path / "shut").unlink()
        forget(address)
        with rasterio.open(path) as local, open_raster(address) as src:
            assert (src.read() == local.read()).all()


@pytest.mark.parametrize("mode", ["shut", "mute"])
def test_a_server_that_is_in_trouble_when_pixels_are_read_is_told_as_such(
    tmp_path, monkeypatch, mode
):
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    write_raster(tmp_path / "city.tif", city(1500, 1500))
    with serving(tmp_path) as url:
        spec = inspect_source(f"{url}/{mode}/0/city.tif", SourceOptions(), None)
        with SourceView(spec) as view:
            (tmp_path / "shut").touch()
            with pytest.raises(ServerError, match=r"(no answer|code: 500).*again later"):
                view.read(row=1200, col=700, height=90, width=90)


def test_a_server_that_hangs_up_now_and_then_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    path = tmp_path / "city.tif"
    write_raster(path, city(700, 600))
    with (
        rasterio.open(path) as local,
        serving(tmp_path) as url,
        open_raster(f"{url}/drops/0/city.tif") as src,
    ):
        assert (src.read() == local.read()).all()
