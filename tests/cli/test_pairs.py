import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from PIL import Image

from tests.training.images import make_pair, write_side_by_side
from tilemapper.cli.main import cli, run
from tilemapper.training import palette
from tilemapper.training.pairs import open_pairs


@pytest.fixture
def rasters(tmp_path):
    paths = []
    for name, pixels in zip("ab", make_pair(1, 200), strict=True):
        paths.append(str(tmp_path / f"{name}.tif"))
        with rasterio.open(
            paths[-1], "w", driver="GTiff", height=200, width=200, count=3, dtype="uint8",
            crs="EPSG:32633", transform=Affine(1, 0, 5e5, 0, -1, 5e6), photometric="RGB",
        ) as dst:  # fmt: skip
            dst.write(pixels.transpose(2, 0, 1))
    return paths


def test_cut_then_check_then_pack_then_open(tmp_path, rasters):
    out = str(tmp_path / "pairs")
    cut = CliRunner().invoke(cli, ["pairs", "cut", *rasters, out, "--tile", "100", "--json"])
    assert cut.exit_code == 0
    assert len(json.loads(cut.stdout)["pairs"]) == 4
    checked = CliRunner().invoke(cli, ["pairs", "check", out, "--json"])
    assert json.loads(checked.stdout) == {"pairs": 4, "faults": []}
    packed = CliRunner().invoke(cli, ["pairs", "pack", out, str(tmp_path / "p.npz")])
    assert packed.stdout == f"4 pairs in {tmp_path / 'p.npz'}\n"
    assert len(open_pairs(tmp_path / "p.npz")) == 4


def test_a_pack_of_overlapping_pairs_says_where_their_list_is(tmp_path, rasters):
    out = str(tmp_path / "pairs")
    cut = CliRunner().invoke(
        cli, ["pairs", "cut", *rasters, out, "--tile", "100", "--stride", "50"]
    )
    assert cut.stdout == f"9 pairs in {out}, 0 places skipped\n"
    packed = CliRunner().invoke(cli, ["pairs", "pack", out, str(tmp_path / "p.npz")])
    assert f"train with --set data.overlaps={out}/overlaps.json" in packed.stderr


def test_check_lists_all_faults_and_leaves_with_one(tmp_path, capsys):
    write_side_by_side(tmp_path, 4, size=96)
    satellite, target = make_pair(9, 96)
    Image.fromarray(np.concatenate([satellite[:, ::-1], target], 1)).save(tmp_path / "m.png")
    (tmp_path / "t.png").write_bytes((tmp_path / "1.png").read_bytes()[:500])
    assert run(cli, ["pairs", "check", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert [line.split("\t")[:2] for line in said.out.splitlines()] == [
        ["damaged", "t"],
        ["mirrored", "m"],
    ]
    assert said.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["check", "missing"], 1, "no such folder"),
        (["pack", "missing", "x.npz"], 1, "no such folder"),
        (["cut", "missing.tif", "b.tif", "out"], 1, "missing.tif"),
        (["cut", "a", "b", "out", "--gsd", "x"], 2, "native"),
        (["cut", "a", "b", "out", "--tile", "3"], 2, "tile 3"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path, monkeypatch, capsys, args, code, word):
    monkeypatch.chdir(tmp_path)
    assert run(cli, ["pairs", *args]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert word in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert list(tmp_path.iterdir()) == []


def test_packing_into_another_suffix_is_refused(tmp_path, capsys):
    write_side_by_side(tmp_path / "in", 1, size=32)
    assert run(cli, ["pairs", "pack", str(tmp_path / "in"), str(tmp_path / "x.zip")]) == 2
    assert ".npz is needed" in capsys.readouterr().err


def test_a_palette_whose_classes_have_names_is_not_counted_over(tmp_path, capsys):
    write_side_by_side(tmp_path / "in", 1, size=32)
    mine, away = tmp_path / "palette.toml", tmp_path / "away.toml"
    mine.write_text("# named by hand")
    away.symlink_to("unmounted/palette.toml")
    for out in (mine, away):
        assert run(cli, ["pairs", "palette", str(tmp_path / "in"), "--out", str(out)]) == 1
        assert f"{out.name}: exists already" in capsys.readouterr().err
    assert mine.read_text() == "# named by hand"
    assert away.is_symlink()


def test_a_palette_that_was_written_meanwhile_is_left(tmp_path, capsys, monkeypatch):
    write_side_by_side(tmp_path / "in", 1, size=32)
    out, real = tmp_path / "palette.toml", palette.count_palette

    def meanwhile(*arguments, **options):
        out.write_text("# named by hand")
        return real(*arguments, **options)

    monkeypatch.setattr(palette, "count_palette", meanwhile)
    assert run(cli, ["pairs", "palette", str(tmp_path / "in"), "--out", str(out)]) == 1
    assert f"{out.name}: exists already" in capsys.readouterr().err
    assert out.read_text() == "# named by hand"
