"""``tilemapper render``, ``verify`` and ``rio tilemap`` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.rio.main import main_group

from tests.conftest import noise, read_raster, write_raster
from tilemapper.cli.main import cli, outcome, run
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, save_model
from tilemapper.render.stream import stream


@pytest.fixture
def tilemapper(capfd, monkeypatch, models):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))

    def call(*args: object) -> tuple[int, str, str]:
        code = run(cli, [str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_one_summary_line_on_stdout_and_silence_on_stderr(tilemapper, make_raster, tmp_path):
    city, target = make_raster(300, 500), tmp_path / "map.tif"
    code, out, err = tilemapper("render", city, target, "--model", "identity")
    assert (code, err) == (0, "")
    assert out.startswith(f"{target}: 500 x 300 px, 6 tiles in ")
    assert out.endswith("tiles/s)\n")
    assert np.array_equal(read_raster(target), read_raster(city))


def test_a_small_tile_overlaps_by_what_it_allows_unless_more_is_asked_for(
    tilemapper, make_raster, tmp_path
):
    city, target = make_raster(100, 150), tmp_path / "map.tif"
    card = ModelCard(name="small", architecture="identity", tile=64)
    generator = build_generator("identity", {}, card.channels, card.head)
    folder = save_model(tmp_path / "small", card, generator, "# small").folder
    args = ("render", city, target, "--model", folder)
    code, out, _ = tilemapper(*args, "--dry-run")
    assert code == 0 and "30 in 1 block(s)" in out and "overlap 32 px\n" in out
    assert json.loads(tilemapper(*args, "--dry-run", "--json")[1])["overlap"] == 32
    assert tilemapper(*args)[0] == 0
    with rasterio.open(target) as made:
        assert json.loads(made.tags()["TILEMAPPER_PLAN"])["overlap"] == 32
    assert stream(city, model=folder).plan.overlap == 32
    assert tilemapper("info", city, "--doctor", folder)[0] == 0
    code, _, err = tilemapper(*args, "--overwrite", "--overlap", "64")
    assert (code, err.count("\n")) == (2, 1)
    assert "overlap 64: more than half of the tile of 64 px" in err


def test_json_is_one_object(tilemapper, make_raster, tmp_path):
    code, out, _ = tilemapper(
        "render", make_raster(64, 64), tmp_path / "map.tif", "--model", "identity", "--json"
    )
    result = json.loads(out)
    assert code == 0
    assert (result["width"], result["tiles"], result["model"]) == (64, 1, "identity")


def test_quiet_is_quiet_whatever_else_is_asked(tilemapper, make_raster, tmp_path):
    args = ("render", make_raster(64, 64), tmp_path / "map.tif", "--model", "identity", "-v")
    assert "1 block(s)" in tilemapper(*args)[2]
    assert tilemapper(*args, "--overwrite", "-q")[2] == ""


def closed(streams, *arguments, models):
    """Exit code of a command whose caller has closed these streams."""
    program = [sys.executable, "-m", "tilemapper", *map(str, arguments)]
    return subprocess.run(
        ["sh", "-c", f'"$@" {streams}', "sh", *program],
        env=os.environ | {"TILEMAPPER_MODELS": str(models)},
        timeout=120,
        check=False,
    ).returncode


def test_streams_that_the_caller_has_closed_stop_no_render(make_raster, models, tmp_path):
    city, target = make_raster(64, 64), tmp_path / "map.tif"
    words = ("render", city, target, "--model", "identity")
    assert closed("0<&- 1>&- 2>&-", *words, models=models) == 0
    assert np.array_equal(read_raster(target), read_raster(city))


@pytest.mark.parametrize("stream", ["0<&-", "1>&-", "2>&-"])
def test_a_stream_that_the_caller_has_closed_stops_nothing(models, tmp_path, stream):
    """With a command that loads no torch: all of them begin alike."""
    city = tmp_path / "city.tif"
    assert closed(stream, "sample", city, "--size", "64", models=models) == 0
    assert (read_raster(city).shape, len(city.read_bytes()) > 64 * 64) == ((3, 64, 64), True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("log", ["a pipe that nobody reads", "a full disk"])
def test_a_log_that_takes_no_more_stops_no_render(make_raster, models, tmp_path, log):
    """With `render -v 2>&1 | head -1` there was no map, and no word."""
    target = tmp_path / "map.tif"
    words = ("render", make_raster(64, 64), target, "--model", "identity", "-v")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread, Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tilemapper", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=full if log == "a full disk" else unread,
            env=os.environ | {"TILEMAPPER_MODELS": str(models)},
            timeout=120,
            check=False,
        )
    assert (ended.returncode, target.exists()) == (0, True)
    assert ended.stdout.startswith(str(target).encode())


def test_closed_streams_are_open_in_the_processes_that_are_started_too():
    """A worker's next file was its stderr, into which libraries print."""
    started = "import os; [os.fstat(number) for number in (0, 1, 2)]"
    program = (
        "import subprocess, sys; from tilemapper.cli.streams import open_streams; open_streams(); "
        f"sys.exit(subprocess.run([sys.executable, '-c', {started!r}]).returncode)"
    )
    closing = ["sh", "-c", '"$@" 0<&- 1>&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(closing, timeout=120, check=False).returncode == 0


def test_no_pixel_a_block_is_no_size(tilemapper, make_raster, tmp_path):
    args = ("render", make_raster(64, 64), tmp_path / "map.tif", "--model", "identity")
    code, _, err = tilemapper(*args, "--block", "0")
    assert code == 2 and "--block 0: must be a multiple of 512" in err


def test_a_dry_run_prints_the_plan_and_writes_nothing(tilemapper, make_raster, tmp_path):
    city, target = make_raster(700, 900), tmp_path / "map.tif"
    code, out, err = tilemapper(
        "render", city, target, "--model", "identity", "--dry-run", "--json", "--block", "512"
    )
    cost = json.loads(out)
    assert (code, err) == (0, "")
    assert (cost["blocks"], cost["tiles"]) == (4, 36)
    assert cost["redundant_share"] == pytest.approx(36 / 20 - 1)
    assert cost["memory_bytes"] > 0
    assert cost["tiles_s"] > 0
    code, out, _ = tilemapper("render", city, target, "--model", "identity", "--dry-run")
    assert "20 in 1 block(s)" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["city.tif"]


@pytest.mark.parametrize("option", ["--uncertainty", "--report"])
def test_a_dry_run_refuses_what_the_run_would(tilemapper, make_raster, tmp_path, option):
    there = tmp_path / "there.tif"
    there.touch()
    args = ("render", make_raster(64, 64), tmp_path / "map.tif", "--model", "identity", "--dry-run")
    code, out, err = tilemapper(*args, option, there)
    assert (code, out) == (1, "") and f"{there}: exists already" in err
    assert tilemapper(*args, option, there, "--overwrite")[0] == 0


def test_a_page_is_written_over_no_layer_and_no_mask(tilemapper, make_raster, tmp_path):
    args = ("render", make_raster(64, 64), tmp_path / "map.tif", "--model", "identity")
    same = tmp_path / "same.tif"
    for option in ("--uncertainty", "--mask"):
        code, _, err = tilemapper(*args, option, same, "--report", same, "--overwrite")
        assert code == 2 and f"{option[2:]} and the page would be one file; name two" in err
    assert not same.exists()


def test_bands_scale_and_nodata_from_the_command_line(tilemapper, tmp_path):
    pixels = (noise(300, 300, bands=4).astype(np.uint16) + 100) * 4
    pixels[:, :50] = 7
    city = write_raster(tmp_path / "city.tif", pixels)
    code, _, err = tilemapper(
        "render", city, tmp_path / "map.tif", "--model", "identity", "--bidx", "4,2",
        "--bidx", "1", "--scale", "400,1420", "--nodata", "7",
    )  # fmt: skip
    assert code == 0, err
    with rasterio.open(tmp_path / "map.tif") as dst:
        kept = dst.dataset_mask() > 0
        assert not kept[:50].any()
        assert kept[50:].all()
        expected = np.rint((pixels[[3, 1, 0], 50:] - 400.0) / 1020 * 255)
        assert np.abs(dst.read()[:, 50:] - expected).max() <= 1


def test_bounds_and_mask_limit_the_work(tilemapper, make_raster, tmp_path):
    city = make_raster(600, 600)
    with rasterio.open(city) as src:
        left, top = src.transform @ (100, 200)
        right, bottom = src.transform @ (400, 500)
    code, _, err = tilemapper(
        "render", city, tmp_path / "map.tif", "--model", "identity",
        "--bounds", f"{left},{bottom},{right},{top}",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert np.array_equal(read_raster(tmp_path / "map.tif"), read_raster(city)[:, 200:500, 100:400])


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["--overlap", "50"], 2, "error: overlap 50: must be one of 0, 32, 64, 96, 128"),
        (["--model", "nope"], 1, "error: nope: no model of this name or path"),
        (["--bidx", "1,2,9"], 1, "city.tif"),
        (["--classes", "c.tif"], 2, "--classes: model identity paints RGB"),
        (["--device", "cuda:7"], 1, "error: device cuda:7: 0 CUDA device(s) found"),
        (["--co", "COMPRESS"], 2, "is not of the form KEY=VALUE"),
        (["--bounds", "1,2,3"], 2, "4 numbers are needed"),
        (["--gsd", "big"], 2, "is neither a number nor auto or native"),
    ],
)
def test_bad_options_end_with_one_line_and_their_code(
    tilemapper, make_raster, tmp_path, args, code, line
):
    target = tmp_path / "map.tif"
    got, out, err = tilemapper("render", make_raster(64, 64), target, "--model", "identity", *args)
    assert (got, out) == (code, "")
    assert line in err
    assert err.count("rror: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["city.tif"]


def bad_sources(folder: Path) -> dict[str, Path]:
    """Files that are no usable raster, by what is wrong with them."""
    good = write_raster(folder / "good.tif", noise(600, 600), tiled=True, blockysize=256)
    data = good.read_bytes()
    made = {
        "missing": folder / "missing.tif",
        "a folder": folder,
        "empty": folder / "empty.tif",
        "text": folder / "text.tif",
        "truncated": folder / "truncated.tif",
        "a VRT in disguise": folder / "vrt.tif",
        "two bands": write_raster(folder / "two.tif", noise(64, 64, bands=2)),
        "complex": write_raster(folder / "complex.tif", noise(64, 64).astype(np.complex64)),
    }
    made["empty"].write_bytes(b"")
    made["text"].write_text("satellite, honest\n" * 50)
    made["truncated"].write_bytes(data[: len(data) // 2])
    made["a VRT in disguise"].write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{good}</SourceFilename></SimpleSource></VRTRasterBand>"
        "</VRTDataset>"
    )
    return made


def test_bad_sources_end_with_one_line_and_nothing_under_the_final_name(tilemapper, tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    target = tmp_path / "map.tif"
    for what, path in bad_sources(folder).items():
        code, out, err = tilemapper("render", path, target, "--model", "identity")
        assert (code, out) == (1, ""), what
        assert err.startswith("error: "), what
        assert len(err.splitlines()) == 1, (what, err)
        assert not target.exists(), what


def test_damaged_weights_are_refused(tilemapper, make_raster, models, tmp_path):
    import shutil

    model = tmp_path / "broken"
    shutil.copytree(models / "unet", model)
    weights = model / "generator.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    code, _, err = tilemapper("render", make_raster(64, 64), tmp_path / "m.tif", "--model", model)
    assert code == 1
    assert "sha256" in err
    assert len(err.splitlines()) == 1


def test_options_come_from_the_environment_too(tilemapper, make_raster, tmp_path, monkeypatch):
    monkeypatch.setenv("TILEMAPPER_RENDER_MODEL", "constant")
    code, _, _ = tilemapper("render", make_raster(64, 64), tmp_path / "map.tif")
    assert code == 0
    assert (read_raster(tmp_path / "map.tif") == 200).all()


def test_verify_finds_the_map_good_then_a_changed_pixel_then_a_changed_source(
    tilemapper, make_raster, tmp_path
):
    city, target = make_raster(700, 600), tmp_path / "map.tif"
    assert tilemapper("render", city, target, "--model", "identity")[0] == 0
    code, out, err = tilemapper("verify", target)
    assert (code, err) == (0, "")
    assert out.startswith(f"{target}: good (")
    with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
        pixels = dst.read()
        pixels[0, 690, 590] ^= 1
        dst.write(pixels)
    code, out, err = tilemapper("verify", target, "--json")
    assert code == 1
    assert not json.loads(out)["ok"]
    assert "error: " in err
    with rasterio.open(city, "r+") as src:
        src.write(255 - src.read())
    code, _, err = tilemapper("verify", target)
    assert code == 1
    assert "is not the raster that was rendered" in err


@pytest.mark.parametrize("model", ["classes", "unet"])
def test_verify_knows_the_layers_beside_a_map(tilemapper, make_raster, tmp_path, model):
    layers = {"--uncertainty": tmp_path / "doubt.tif"}
    if model == "classes":
        layers["--classes"] = tmp_path / "classes.tif"
    beside = [word for pair in layers.items() for word in pair]
    city = make_raster(300, 280)
    assert tilemapper("render", city, tmp_path / "map.tif", "--model", model, *beside)[0] == 0
    for layer in layers.values():
        assert tilemapper("verify", layer)[::2] == (0, "")
        with rasterio.open(layer, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
            dst.write(dst.read() ^ 1)
        assert tilemapper("verify", layer)[0] == 1


def test_verify_compares_what_is_lossless_by_option(tilemapper, make_raster, tmp_path):
    target = tmp_path / "map.tif"
    command = ["render", make_raster(300, 300), target, "--model", "identity", "--gsd", "native"]
    webp = ["--co", "COMPRESS=WEBP", "--co", "QUALITY=100"]
    assert tilemapper(*command, *webp)[0] == 0
    code, out, err = tilemapper("verify", target)
    assert (code, err) == (0, "")
    assert "block(s) rendered again" in out
    assert "0 block(s)" not in out


def test_verify_does_not_take_lossy_pixels_for_wrong_ones(tilemapper, make_raster, tmp_path):
    target = tmp_path / "map.tif"
    command = ["render", make_raster(300, 280), target, "--model", "identity"]
    assert tilemapper(*command, "--co", "COMPRESS=JPEG")[0] == 0
    code, out, err = tilemapper("verify", target)
    assert code == 0
    assert "0 block(s) rendered again" in out
    assert err == f"note: {target}: JPEG changes pixels, so no block is rendered again to compare\n"


def test_verify_refuses_what_tilemapper_did_not_write(tilemapper, make_raster):
    code, _, err = tilemapper("verify", make_raster(64, 64))
    assert code == 1
    assert "has no TILEMAPPER_PLAN tag" in err


def test_rio_tilemap_is_the_same_command(make_raster, models, tmp_path, monkeypatch, capfd):
    city, target = make_raster(64, 64), tmp_path / "map.tif"
    rio = Path(sys.executable).with_name("rio")
    command = [str(rio), "tilemap", str(city), str(target)]
    variables = {**os.environ, "TILEMAPPER_RENDER_MODEL": str(models / "constant")}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    assert (read_raster(target) == 200).all()
    monkeypatch.setenv("TILEMAPPER_RENDER_MODEL", str(models / "constant"))
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as again:
        main_group()
    assert again.value.code == 1
    said = capfd.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_ctrl_c_under_rio_ends_with_130_as_it_does_under_tilemapper(capfd):
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert outcome(interrupted) == 130
    assert capfd.readouterr().err == "interrupted by signal 2; run the same command to go on\n"
