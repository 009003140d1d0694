import json
import math

import pytest
import torch
from click.testing import CliRunner

from tests.networks.foreign import JunyanzUNet, randomise
from tilemapper.cli.main import cli, run
from tilemapper.cli.models import models
from tilemapper.networks import model as model_module
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, open_model, save_model

SAID = ["--dialect", "junyanz", "--gsd-m", "0.9", "--direction", "AtoB", "--norm-stats", "running"]


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """A folder of models, the only one: a small U-Net, a stand-in, and a damaged card."""
    folder = tmp_path / "shelf"
    arguments = {"width": 2, "depth": 5}
    card = ModelCard(
        name="small",
        architecture="unet",
        arguments=arguments,
        gsd_m=0.9,
        metrics={"road_f1": math.nan},
    )
    save_model(folder / "small", card, build_generator("unet", arguments, 3), "# Small\n")
    card = ModelCard(name="same", architecture="identity")
    save_model(folder / "same", card, build_generator("identity", {}, 3), "")
    (folder / "worse").mkdir()
    (folder / "worse" / "model.toml").write_text("nonsense")
    monkeypatch.setattr(model_module, "_folders", lambda: [folder])
    return folder


def call(*arguments):
    """Exit code, stdout and stderr of ``tilemapper models ...`` as a user meets them."""
    with CliRunner().isolation() as (out, err, _):
        code = run(cli, ["models", *map(str, arguments)])
        return code, out.getvalue().decode(), err.getvalue().decode()


def test_list_prints_one_line_a_model_and_warns_of_a_damaged_one(shelf):
    code, out, err = call("list")
    assert code == 0
    assert [line.split("\t")[:4] for line in out.splitlines()] == [
        ["same", "identity", "rgb", "any GSD"],
        ["small", "unet", "rgb", "0.9 m"],
    ]
    assert err.startswith("warning: ")
    assert "worse" in err


def test_list_as_json_is_one_object(shelf):
    code, out, _ = call("list", "--json")
    assert code == 0
    found = json.loads(out)
    assert [card["name"] for card in found["models"]] == ["same", "small"]
    assert len(found["damaged"]) == 1


def test_show_prints_the_card_that_stands_in_the_folder(shelf):
    code, out, err = call("show", "small")
    assert code == 0
    assert out == (shelf / "small" / "model.toml").read_text()
    assert "weights in order" in err


def test_show_as_json_writes_an_undefined_figure_as_null(shelf):
    code, out, _ = call("show", "small", "--json")
    assert code == 0
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["metrics"] == {"road_f1": None}
    assert found["parameters"] > 0


def test_show_of_an_unknown_or_damaged_model_is_one_line_and_exit_1(shelf):
    code, out, err = call("show", "smal")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "there are: same, small" in err
    weights = shelf / "small" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    code, _, err = call("show", "small")
    assert code == 1
    assert err.startswith(f"error: {weights}: sha256 is")
    assert err.count("\n") == 1


@pytest.mark.parametrize("left_out", range(0, 8, 2))
def test_import_refuses_to_guess(tmp_path, left_out):
    torch.save(JunyanzUNet(width=1).state_dict(), tmp_path / "g.pth")
    said = SAID[:left_out] + SAID[left_out + 2 :]
    code, _, err = call("import", tmp_path / "g.pth", tmp_path / "mine", *said)
    assert code == 2
    assert SAID[left_out] in err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("gsd", ["0", "-1", "nan", "inf", "fine"])
def test_import_refuses_a_gsd_that_is_no_length(tmp_path, gsd):
    said = [gsd if value == "0.9" else value for value in SAID]
    code, _, err = call("import", tmp_path / "g.pth", tmp_path / "mine", *said)
    assert code == 2
    assert "metres" in err


def test_import_writes_a_model_and_prints_its_folder(tmp_path):
    torch.save(randomise(JunyanzUNet(width=2)).state_dict(), tmp_path / "g.pth")
    code, out, err = call("import", tmp_path / "g.pth", tmp_path / "mine", *SAID)
    assert (code, err) == (0, "")
    assert out.strip() == str(tmp_path / "mine")
    assert open_model(tmp_path / "mine").card.gsd_m == 0.9


def test_import_takes_a_model_of_no_known_gsd(tmp_path):
    torch.save(randomise(JunyanzUNet(width=1)).state_dict(), tmp_path / "g.pth")
    said = ["none" if value == "0.9" else value for value in SAID]
    code, out, _ = call("import", tmp_path / "g.pth", tmp_path / "mine", *said, "--json")
    assert code == 0
    assert json.loads(out)["gsd_m"] is None


def test_import_of_a_truncated_checkpoint_is_one_line_and_exit_1(tmp_path):
    torch.save(JunyanzUNet(width=1).state_dict(), tmp_path / "g.pth")
    whole = (tmp_path / "g.pth").read_bytes()
    (tmp_path / "g.pth").write_bytes(whole[: len(whole) // 2])
    code, out, err = call("import", tmp_path / "g.pth", tmp_path / "mine", *SAID)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {tmp_path / 'g.pth'}: ")
    assert err.count("\n") == 1


def test_export_to_a_folder_gives_the_same_model(shelf, tmp_path):
    code, out, _ = call("export", "small", tmp_path / "copy")
    assert (code, out.strip()) == (0, str(tmp_path / "copy"))
    assert open_model(tmp_path / "copy").card.digest == open_model("small").card.digest
    assert (tmp_path / "copy" / "README.md").read_text() == "# Small\n"
    _, out, _ = call("export", "small", tmp_path / "again", "--json")
    assert json.loads(out) == {"model": "small", "out": str(tmp_path / "again")}


def test_export_to_onnx_writes_a_file_that_onnx_accepts(shelf, tmp_path):
    import onnx

    code, _, err = call("export", "same", tmp_path / "same.onnx")
    assert (code, err) == (0, "")
    onnx.checker.check_model(onnx.load(tmp_path / "same.onnx"))


def test_export_never_replaces_a_file_unasked(shelf, tmp_path):
    (tmp_path / "out.onnx").write_text("precious")
    code, _, err = call("export", "same", tmp_path / "out.onnx")
    assert code == 1
    assert "exists already" in err
    assert (tmp_path / "out.onnx").read_text() == "precious"


def test_export_leaves_a_model_that_another_put_there_meanwhile(shelf, tmp_path, monkeypatch):
    out, real = tmp_path / "out", model_module.Model.generator

    def meanwhile(model):
        monkeypatch.setattr(model_module.Model, "generator", real)
        assert call("export", "same", out)[0] == 0
        return real(model)

    monkeypatch.setattr(model_module.Model, "generator", meanwhile)
    code, _, err = call("export", "small", out)
    assert (code, err) == (1, f"error: {out}: exists already; choose a new folder\n")
    assert open_model(out).card.digest == open_model("same").card.digest


def test_export_replaces_models_and_empty_folders_and_nothing_else(shelf, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("precious")
    code, _, err = call("export", "small", out, "--overwrite")
    assert (code, err.count("\n")) == (1, 1)
    assert "holds files and no model.toml" in err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("README.md", "precious")]
    (out / "README.md").unlink()
    for name in ("same", "small"):
        assert call("export", name, out, "--overwrite")[0] == 0
        assert open_model(out).card.digest == open_model(name).card.digest


def test_the_group_names_its_four_commands():
    assert sorted(models.commands) == ["export", "import", "list", "show"]
