import errno
import io
import json
import os
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from PIL import Image

from tests.training.images import write_side_by_side
from tilemapper.cli.main import cli, run
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, save_model
from tilemapper.training.pairs import open_pairs, split_pairs
from tilemapper.training.similarity import resize_without_antialias
from tilemapper.training.split import digest_pairs, digest_split


@pytest.fixture
def model(tmp_path):
    card = ModelCard(name="identity", architecture="identity")
    generator = build_generator("identity", {}, 3, "rgb")
    return str(save_model(tmp_path / "identity", card, generator, "readme").folder)


@pytest.fixture
def data(tmp_path):
    write_side_by_side(tmp_path / "data" / "train", 2, size=64)
    write_side_by_side(tmp_path / "data" / "val", 3, size=64)
    return str(tmp_path / "data")


@pytest.fixture
def at_64_px(monkeypatch):
    """Figures "at 256" are of 64 px, as the pairs are: which are measured shows on fewer pixels."""
    monkeypatch.setattr(resize_without_antialias, "__defaults__", (64,))


SELECTION = pytest.mark.usefixtures("at_64_px")


def evaluate(*args):
    result = CliRunner().invoke(cli, ["evaluate", *map(str, args), "--device", "cpu", "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_the_table_sheet_and_csv_are_of_the_held_out_pairs(tmp_path, model, data):
    outputs = ["--sheet", tmp_path / "sheet.png", "--csv", tmp_path / "each.csv"]
    found = evaluate(model, data, *outputs)
    assert found["pairs"] == 3
    rows = {(row["who"], row["scale"]) for row in found["rows"]}
    assert rows == {
        (who, scale) for who in ("model", "constant colour") for scale in ("256", "native")
    }
    lines = (tmp_path / "each.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 4
    assert {line.split(",")[0] for line in lines[1:]} == {"val/1", "val/2", "val/3"}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1024


def test_all_pairs_baselines_and_photographs_can_be_measured(model, data):
    found = evaluate(model, data, "--split", "all", "--baseline", model, "--direction", "BtoA")
    assert found["pairs"] == 5
    assert model in {row["who"] for row in found["rows"]}
    assert "road_f1" not in found["headline"]


@SELECTION
def test_a_baseline_whose_folder_has_the_name_of_a_row_stands_in_one_of_its_own(
    tmp_path, model, data, models, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "constant colour"):
        shutil.copytree(models / "constant", tmp_path / name)
    alone = evaluate(model, data)
    named = ["--baseline", "model", "--baseline", "model", "--baseline", "constant colour"]
    found = evaluate(model, data, *named)
    assert found["headline"] == alone["headline"]
    assert list(dict.fromkeys(row["who"] for row in found["rows"])) == [
        "model", "model 2", "model 3", "constant colour 2", "constant colour",
    ]  # fmt: skip


@SELECTION
def test_a_card_says_which_pairs_were_held_out_and_fewer_can_be_asked_for(tmp_path, data):
    card = ModelCard(name="m", architecture="identity", split_share=0.5, split_seed=3)
    generator = build_generator("identity", {}, 3, "rgb")
    model = str(save_model(tmp_path / "m", card, generator, "readme").folder)
    write_side_by_side(tmp_path / "flat", 8, size=64)
    flat = str(tmp_path / "flat")
    own = evaluate(model, flat)
    assert own["pairs"] == 4
    assert own["rows"] == evaluate(model, flat, "--share", "0.5", "--split-seed", "3")["rows"]
    assert evaluate(model, flat, "--share", "0.25")["pairs"] == 2
    assert evaluate(model, data, "--pairs", "2")["pairs"] == 2
    assert evaluate(model, data, "--split", "all", "--pairs", "4")["pairs"] == 4


@SELECTION
def test_a_train_folder_without_its_val_folder_is_not_split_once_more(tmp_path, capsys):
    """A tenth of what the model has learned from was measured as if it had been held out."""
    for part, first in (("train", 1), ("val", 20)):
        write_side_by_side(tmp_path / "pairs" / part, 6, size=64, first=first)
    model = trained_on(tmp_path / "pairs", tmp_path / "m", share=0.1)
    train = str(tmp_path / "pairs" / "train")
    assert run(cli, ["evaluate", model, train, "--device", "cpu"]) == 1
    err = capsys.readouterr().err
    assert "has learned from all of these pairs" in err and err.count("\n") == 1
    assert evaluate(model, train, "--split", "all")["pairs"] == 6
    assert evaluate(model, train, "--share", "0.5")["pairs"] == 3


@SELECTION
def test_folders_of_one_set_of_names_are_told_apart_by_their_pixels(tmp_path, capsys):
    """As `pairs cut` names those of two rasters; what was learned from counted as held out."""
    for part, first in (("train", 1), ("val", 20)):
        write_side_by_side(tmp_path / "pairs" / part, 6, size=64, first=first)
        for number, path in enumerate(sorted((tmp_path / "pairs" / part).iterdir())):
            path.rename(path.with_name(f"r000000_c{64 * number:06d}.png"))
    model = trained_on(tmp_path / "pairs", tmp_path / "m", share=0.1)
    assert evaluate(model, tmp_path / "pairs" / "val")["pairs"] == 6
    assert run(cli, ["evaluate", model, str(tmp_path / "pairs" / "train"), "--device", "cpu"]) == 1
    assert "has learned from all of these pairs" in capsys.readouterr().err


@SELECTION
def test_pairs_that_were_mixed_in_are_not_measured_as_held_out(tmp_path, capsys):
    """A tenth of data.extra was."""
    data = write_side_by_side(tmp_path / "pairs", 6, size=64)
    extra = write_side_by_side(tmp_path / "extra" / "train", 5, size=64, first=50)
    model = trained_on(data, tmp_path / "m", share=0.5, extra=[extra])
    for named in (extra, extra.parent):
        assert run(cli, ["evaluate", model, str(named), "--device", "cpu"]) == 1
        assert "has learned from all of these pairs" in capsys.readouterr().err
    assert evaluate(model, extra, "--split", "all")["pairs"] == 5
    write_side_by_side(extra.parent / "val", 2, size=64, first=70)  # which is never mixed in
    assert evaluate(model, extra.parent)["pairs"] == 2
    assert evaluate(model, data)["pairs"] == 3


@SELECTION
def test_pairs_that_only_have_the_names_of_those_mixed_in_are_measured(tmp_path):
    """Rasters of one size are cut into pairs of the same names, the model's own as well."""
    sets = {}
    for first, name in ((1, "own"), (50, "extra"), (90, "other")):
        sets[name] = write_side_by_side(tmp_path / name, 6, size=64, first=first)
        for number, path in enumerate(sorted(sets[name].iterdir())):
            path.rename(path.with_name(f"r000000_c{64 * number:06d}.png"))
    model = trained_on(sets["own"], tmp_path / "m", share=0.5, extra=[sets["extra"]])
    assert evaluate(model, sets["own"])["pairs"] == 3
    assert evaluate(model, sets["other"])["pairs"] == 3
    assert run(cli, ["evaluate", model, str(sets["extra"]), "--device", "cpu"]) == 1


def trained_on(data, folder, *, share, extra=(), **more):
    """A model whose card says that it learned from these pairs, but for this share of them."""
    source = open_pairs(data)
    split = split_pairs(source, share=share, **more)
    digest, learned = digest_split(source, split), [(source, split.train)]
    learned += [(pairs, range(len(pairs))) for pairs in map(open_pairs, extra)]
    card = ModelCard(
        name="m", architecture="identity", split_share=share,
        pairs_sha256=digest.pairs, held_out_sha256=digest.held_out,
        trained_sha256=[digest_pairs(*part) for part in learned],
    )  # fmt: skip
    generator = build_generator("identity", {}, 3, "rgb")
    return str(save_model(folder, card, generator, "readme").folder)


@SELECTION
def test_another_split_than_the_trainings_is_refused_unless_it_is_asked_for(tmp_path, capsys):
    """The list of overlaps may lie anywhere in training; without it pairs learned from leak in."""
    data = write_side_by_side(tmp_path / "flat", 8, size=64)
    overlaps = tmp_path / "elsewhere.json"
    overlaps.write_text(json.dumps([["1", "2"], ["2", "3"], ["4", "5"], ["6", "7"]]))
    model = trained_on(data, tmp_path / "m", share=0.25, overlaps=overlaps)
    assert run(cli, ["evaluate", model, str(data), "--device", "cpu"]) == 1
    err = capsys.readouterr().err
    assert "give --overlaps" in err and err.count("\n") == 1
    evaluate(model, data, "--overlaps", overlaps)
    evaluate(model, data, "--share", "0.25")
    evaluate(model, data, "--split", "all")
    write_side_by_side(data, 1, size=64, first=9)  # other data: there is no telling
    evaluate(model, data)


@SELECTION
def test_of_the_held_out_folder_alone_all_pairs_are_measured(tmp_path):
    """A tenth of them was: what has no val folder beside it was split once more."""
    for part, first in (("train", 1), ("val", 20)):
        write_side_by_side(tmp_path / "pairs" / part, 6, size=64, first=first)
    model = trained_on(tmp_path / "pairs", tmp_path / "m", share=0.1)
    alone = evaluate(model, tmp_path / "pairs" / "val")
    assert alone["pairs"] == 6
    assert alone["rows"] == evaluate(model, tmp_path / "pairs")["rows"]
    assert evaluate(model, tmp_path / "pairs" / "val", "--share", "0.5")["pairs"] == 3


@SELECTION
def test_a_held_out_folder_of_one_pair_is_measured_alone_too(tmp_path):
    """It was to be split once more, which one pair cannot be."""
    write_side_by_side(tmp_path / "pairs" / "train", 6, size=64)
    write_side_by_side(tmp_path / "pairs" / "val", 1, size=64, first=20)
    source = open_pairs(tmp_path / "pairs")
    held_out = digest_split(source, split_pairs(source)).held_out
    card = ModelCard(name="m", architecture="identity", held_out_sha256=held_out)
    generator = build_generator("identity", {}, 3, "rgb")
    model = str(save_model(tmp_path / "m", card, generator, "readme").folder)
    assert evaluate(model, tmp_path / "pairs" / "val")["pairs"] == 1


def test_a_sheet_is_a_png_by_its_name_too(tmp_path, model, data, capsys):
    """It was written as one under the name of a JPEG."""
    sheet = tmp_path / "sheet.jpg"
    assert run(cli, ["evaluate", model, data, "--sheet", str(sheet)]) == 2
    assert "what is written is PNG; name it sheet.png" in capsys.readouterr().err
    assert not sheet.exists()


@pytest.mark.parametrize("option", ["--csv", "--sheet"])
@pytest.mark.parametrize("place", ["none/x.png", "there", "pipe"])
def test_what_cannot_be_written_is_refused_before_the_first_pair(
    tmp_path, model, data, capsys, monkeypatch, option, place
):
    (tmp_path / "there").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("tilemapper.api.evaluate.evaluate_model", None)
    assert run(cli, ["evaluate", model, data, option, str(tmp_path / place)]) == 1
    said = capsys.readouterr()
    word = "no regular file; " if place == "pipe" else "folder; "
    assert said.out == "" and word in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--csv", "--sheet"])
def test_figures_are_shown_though_the_disk_is_full(
    tmp_path, model, data, capsys, monkeypatch, option
):
    """They take minutes; the table came after the files, so never."""

    def is_full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", is_full)
    args = ["evaluate", model, data, "--device", "cpu", option, str(tmp_path / "x.png")]
    assert run(cli, args) == 75
    said = capsys.readouterr()
    assert "3 pairs" in said.out and "road_f1" in said.out
    assert "x.png" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_files_are_written_though_stdout_takes_no_figures(tmp_path, model, data, monkeypatch):
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table, sheet = tmp_path / "each.csv", tmp_path / "sheet.png"
    named = ["--csv", str(table), "--sheet", str(sheet)]
    monkeypatch.setattr(sys, "stdout", Full())
    assert run(cli, ["evaluate", model, data, "--device", "cpu", *named]) == 75
    assert table.exists() and sheet.exists()


@SELECTION
def test_a_damaged_pair_that_is_not_measured_is_no_matter(tmp_path, capsys):
    """It was read to see whether the model has learned from all of these pairs."""
    data = write_side_by_side(tmp_path / "data", 8, size=64)
    model = trained_on(data, tmp_path / "m", share=0.5)
    source = open_pairs(data)
    split = split_pairs(source, share=0.5)
    for index, code in ((split.train[0], 0), (split.held_out[0], 1)):
        (data / f"{source.names[index]}.png").write_bytes(b"")
        assert run(cli, ["evaluate", model, str(data), "--device", "cpu"]) == code
    assert f"{source.names[split.held_out[0]]}.png" in capsys.readouterr().err


def test_a_damaged_pair_of_those_that_were_learned_from_is_named(tmp_path, capsys):
    """Passed over, it would hide that the others were learned from too."""
    train = write_side_by_side(tmp_path / "data" / "train", 6, size=64)
    write_side_by_side(tmp_path / "data" / "val", 5, size=64)
    model = trained_on(tmp_path / "data", tmp_path / "m", share=0.1)
    assert run(cli, ["evaluate", model, str(train), "--device", "cpu"]) == 1
    assert "has learned from all of these pairs" in capsys.readouterr().err
    source = open_pairs(train)
    damaged = train / f"{source.names[split_pairs(source, share=0.1).train[-1]]}.png"
    damaged.write_bytes(b"")
    assert run(cli, ["evaluate", model, str(train), "--device", "cpu"]) == 1
    assert str(damaged) in capsys.readouterr().err


def test_the_render_path_gives_the_identity_too(model, data):
    tiled, whole = evaluate(model, data, "--tiled"), evaluate(model, data, "--whole")
    assert (tiled["tiled"], whole["tiled"]) == (True, False)
    assert tiled["rows"] == whole["rows"]  # the identity has no view, so tiles change nothing


@pytest.mark.parametrize(
    ("tile", "overlap", "size"), [(32, 0, 100), (64, 32, 100), (128, 64, 200), (256, 64, 400)]
)
def test_tiles_overlap_by_64_or_by_what_a_smaller_tile_allows(tmp_path, tile, overlap, size):
    card = ModelCard(name="u", architecture="unet", arguments={"width": 4, "depth": 5}, tile=tile)
    torch.manual_seed(0)
    generator = build_generator("unet", dict(card.arguments), 3, "rgb")
    model = save_model(tmp_path / "u", card, generator, "readme").folder
    write_side_by_side(tmp_path / "data", 1, size=size)
    args = model, tmp_path / "data", "--split", "all"
    assert evaluate(*args)["headline"] == evaluate(*args, "--overlap", str(overlap))["headline"]


def test_figures_are_of_what_render_paints_unless_whole_images_are_asked_for(tmp_path):
    """A network with a wide view paints an image of 600 px otherwise in one pass than in tiles."""
    card = ModelCard(name="u", architecture="unet", arguments={"width": 4, "depth": 5}, tile=128)
    torch.manual_seed(0)
    generator = build_generator("unet", dict(card.arguments), 3, "rgb")
    model = save_model(tmp_path / "u", card, generator, "readme").folder
    write_side_by_side(tmp_path / "data", 2, size=200)
    plain, tiled, whole = (
        evaluate(model, tmp_path / "data", "--split", "all", *flags)["headline"]
        for flags in ((), ("--tiled",), ("--whole",))
    )
    assert plain == tiled
    assert plain != whole


def test_a_figure_below_its_bound_exits_with_one_after_the_table(model, data, capsys):
    args = ["evaluate", model, data, "--device", "cpu", "--min", "psnr=5", "--min", "road_f1=0.99"]
    assert run(cli, args) == 1
    said = capsys.readouterr()
    assert "3 pairs" in said.out
    assert "road_f1" in said.out
    last = said.err.splitlines()[-1]
    assert "road_f1" in last
    assert "psnr" not in last
    assert run(cli, args[:7]) == 0


@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        (["--min", "roads=1"], 2, "unknown"),
        (["--min", "psnr"], 2, "METRIC=VALUE"),
        (["--weights", "missing.onnx"], 2, "missing.onnx"),
        (["--device", "tpu"], 2, "tpu"),
    ],
)
def test_bad_options_are_told_in_one_line(model, data, capsys, more, code, word):
    assert run(cli, ["evaluate", model, data, *more]) == code
    assert word in capsys.readouterr().err


def test_missing_models_and_data_are_named(tmp_path, model, data, capsys):
    for args in ((str(tmp_path / "no"), data), (model, str(tmp_path / "no"))):
        assert run(cli, ["evaluate", *args]) == 1
        assert str(tmp_path / "no") in capsys.readouterr().err


def test_a_missing_overlap_file_is_named(model, data, capsys):
    args = ["evaluate", model, f"{data}/train", "--overlaps", "missing.json"]
    assert run(cli, args) == 1
    assert "missing.json: not found" in capsys.readouterr().err


def test_lpips_comes_from_a_given_onnx_network_of_two_images(tmp_path, model, data):
    nodes = [
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Abs", ["d"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], axes=[1, 2, 3]),
    ]
    shape = ["n", 3, 256, 256]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 1, 1])
    graph = helper.make_graph(nodes, "difference", inputs, [output])
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(network, tmp_path / "difference.onnx")
    assert 0.1 < evaluate(model, data, "--weights", tmp_path / "difference.onnx")["lpips"] < 2


def test_fid_and_kid_come_from_a_given_onnx_network(tmp_path, model, data):
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    shape = ["n", 3, 256, 256]
    graph = helper.make_graph(
        [node], "means",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )  # fmt: skip
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(network, tmp_path / "means.onnx")
    found = evaluate(model, data, "--weights", tmp_path / "means.onnx")
    assert found["fid"] > 0
    assert np.isfinite(found["kid"])
    one = evaluate(model, data, "--weights", tmp_path / "means.onnx", "--pairs", "1")
    assert (one["fid"], one["kid"]) == (None, None)
