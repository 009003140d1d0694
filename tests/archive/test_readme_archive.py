"""The README's archive section, word for word, on a folder of real rasters."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tilemapper.cli.batch import batch
from tilemapper.cli.main import run
from tilemapper.cli.status import status

SECTION = (Path(__file__).parents[2] / "README.md").read_text().split("\n## Archives\n")[1]
JOB = re.search(r"```toml\n(.*?)```", SECTION, re.DOTALL)
DATA = Path(os.environ.get("TILEMAPPER_TEST_DATA", "nothing")) / "rasters"


@pytest.mark.data
@pytest.mark.fault  # for the minutes that it takes
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.is_dir(), reason="TILEMAPPER_TEST_DATA names no reference data")
def test_the_archive_section_works_on_rasters_of_all_kinds(tmp_path, models, monkeypatch, capsys):
    shutil.copytree(models / "identity", tmp_path / "models" / "maps")
    monkeypatch.setenv("TILEMAPPER_MODELS", str(tmp_path / "models"))
    shutil.copytree(DATA, tmp_path / "imagery", copy_function=shutil.copyfile)
    assert JOB is not None
    (tmp_path / "nightly.toml").write_text(JOB[1])
    commands = re.findall(r"^tilemapper (\w+) (\S+)(.*?)(?:#.*)?$", SECTION, re.MULTILINE)
    assert [name for name, *_ in commands] == ["batch", "batch", "status"]
    monkeypatch.chdir(tmp_path)
    codes = []
    for name, job, options in commands:
        command = {"batch": batch, "status": status}[name]
        codes.append(run(command, [job, *options.split()]))
    assert codes == [0, 3, 0]
    capsys.readouterr()
    assert run(batch, ["nightly.toml", "--json", "-q"]) == 3
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert summary["done"] == summary["left"] == 0
    assert summary["already_done"] > 50
    for failure in summary["failures"]:
        assert "defect" not in failure["error"]
        assert "\n" not in failure["error"]
