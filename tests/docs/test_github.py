"""The files that a forge reads: they parse, and run what CONTRIBUTING.md says they run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github").rglob("*.yml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_the_forge_reads_is_a_table(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_workflow_runs_the_projects_own_check_and_may_only_read():
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    commands = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert commands == [".ci/run"]
    assert os.access(ROOT / commands[0], os.X_OK)
    listed = subprocess.run(
        ["git", "ls-files", "--stage", commands[0]], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert not listed or listed.startswith("100755")  # a checkout without git has no index


def test_a_report_asks_for_commands_that_there_are():
    form = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()
    from tilemapper.cli.main import cli

    for name in ("info", "sample"):
        assert f"tilemapper {name}" in form
        assert cli.get_command(None, name)
