"""Without the packages of an extra: it is named, and nothing is called a defect."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tilemapper.errors import OptionError
from tilemapper.extras import check_extra, of_extra

# As if a package were not installed, for the whole process.
WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None
from tilemapper.__main__ import main
sys.argv[1:] = {words}
main()
"""


@pytest.mark.parametrize(
    "words",
    [
        ["train", "pairs", "--out", "run"],
        ["pairs", "check", "pairs"],
        ["pairs", "cut", "a.tif", "b.tif", "pairs"],
        ["evaluate", "maps", "pairs"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_name_the_extra_that_they_need(tmp_path, words):
    program = WITHOUT.format(names=["PIL"], words=words)
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    line = "Pillow is not installed; pip install 'tilemapper[train]', or '.[train]' in a clone"
    assert ended.stderr == f"error: {line}\n"
    assert not list(tmp_path.iterdir())


def test_a_run_does_not_begin_without_what_it_needs_at_its_end(tmp_path, monkeypatch):
    from tilemapper.api.train import train

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name)
    )
    with pytest.raises(OptionError, match=r"matplotlib is not installed; pip install 'tilemapper"):
        train(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_there_is_imported_and_other_errors_are_let_through():
    with of_extra("train"):
        import json  # noqa: F401
    with pytest.raises(OptionError, match=r"no_such is not installed.*\[onnx\]"), of_extra("onnx"):
        import no_such.thing  # noqa: F401
    with pytest.raises(ValueError, match="other"), of_extra("onnx"):
        raise ValueError("other")
    check_extra("train", "json", "sys")
