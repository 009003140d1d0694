"""The notebook runs from top to bottom, and what its cells show can be shown.

Its code cells are run here, in order and in one namespace, by a few lines: nbclient, nbformat and
ipykernel would bring some thirty packages and a process of its own for four seconds of work.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.docs.test_pages import smaller

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def cells(kind):
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def execute(source, namespace):
    """Runs a cell; the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


@pytest.mark.timeout(600)
def test_every_cell_runs_and_shows_what_it_ends_in(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))
    namespace, shown = {}, []
    for cell in cells("code"):
        value = execute(smaller("".join(cell["source"])), namespace)
        if value is not None:
            html = getattr(value, "_repr_html_", lambda value=value: repr(value))()
            assert 10 < len(html) < 1_000_000
            shown.append(type(value).__name__)
    assert {"RenderResult", "Model", "Diagnosis", "Array", "EvaluationResult"} <= set(shown)


def test_the_notebook_is_well_formed_small_and_holds_no_output():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], NOTEBOOK.stat().st_size < 20_000) == (4, True)
    for cell in cells("code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert cells("markdown")
