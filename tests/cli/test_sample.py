"""``tilemapper sample``: what it writes, prints and refuses."""

from __future__ import annotations

import json
import os

import pytest
import rasterio

from tilemapper.cli.main import cli, run


def sample(*args: object) -> int:
    return run(cli, ["sample", *map(str, args)])


def test_it_writes_city_and_map_and_says_so_in_one_line(tmp_path, capsys):
    city, truth = tmp_path / "city.tif", tmp_path / "map.tif"
    assert sample(city, "--truth", truth, "--size", "60x40", "--seed", 3) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert str(city) in out and str(truth) in out and "60 x 40 px" in out and out.endswith(" s\n")
    for path in (city, truth):
        with rasterio.open(path) as src:
            assert (src.width, src.height) == (60, 40)


def test_json_is_one_object(tmp_path, capsys):
    city = tmp_path / "city.tif"
    assert sample(city, "--size", 33, "--json") == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["city"] == str(city) and summary["truth"] is None
    assert (summary["height"], summary["width"], summary["seed"]) == (33, 33, 0)
    assert summary["seconds"] > 0 and captured.err == ""


def test_the_size_may_come_from_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TILEMAPPER_SAMPLE_SIZE", "21x12")
    assert run(cli, ["sample", str(tmp_path / "c.tif")], auto_envvar_prefix="TILEMAPPER") == 0
    assert "21 x 12 px" in capsys.readouterr().out


def test_an_existing_output_is_refused_in_one_line(tmp_path, capsys):
    city = tmp_path / "city.tif"
    city.write_bytes(b"mine")
    assert sample(city, "--size", 9) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {city}: exists already") and err.count("\n") == 1
    assert city.read_bytes() == b"mine"
    assert sample(city, "--size", 9, "--overwrite") == 0
    assert city.read_bytes() != b"mine"


@pytest.mark.parametrize("option", [[], ["--truth"]])
def test_a_link_that_leads_nowhere_is_not_replaced_unasked(tmp_path, capsys, option):
    link = tmp_path / "link.tif"
    link.symlink_to("unmounted/link.tif")
    call = [*([tmp_path / "city.tif"] if option else []), *option, link, "--size", 9]
    assert sample(*call) == 1
    assert capsys.readouterr().err.startswith(f"error: {link}: exists already")
    assert link.is_symlink()
    assert sample(*call, "--overwrite") == 0
    assert link.is_file() and not link.is_symlink()


@pytest.mark.parametrize("option", [[], ["--truth"]])
def test_a_name_of_another_kind_of_file_is_refused(tmp_path, capsys, option):
    first = [tmp_path / "city.tif"] if option else []
    assert sample(*first, *option, tmp_path / "other.png", "--size", 9) == 2
    err = capsys.readouterr().err
    assert "other.png: .png is another kind of file" in err and "name it other.tif" in err
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced_by_a_city(tmp_path, capsys):
    os.mkfifo(pipe := tmp_path / "city.tif")
    assert sample(pipe, "--size", 9, "--overwrite") == 1
    assert "no regular file" in capsys.readouterr().err and pipe.is_fifo()


@pytest.mark.parametrize("size", ["0", "axb", "1x2x3", "-5", "", "10x", "99999999"])
def test_impossible_sizes_are_usage_errors(tmp_path, capsys, size):
    assert sample(tmp_path / "c.tif", "--size", size) == 2
    assert capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
