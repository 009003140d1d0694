"""Pages and pictures that programs make: up to date, and made of what the code computes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


def program(name):
    """A program under docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "keys.md"])
def test_the_reference_is_up_to_date(page):
    made = program("reference").PAGES[page]()
    assert (DOCS / page).read_text() == made, "run python docs/reference.py"


def test_every_command_and_option_is_in_the_reference():
    from tilemapper.cli.main import COMMANDS

    text = (DOCS / "cli.md").read_text()
    assert all(f"\n## tilemapper {name}\n" in text for name in COMMANDS)
    assert "TILEMAPPER_RENDER_OVERLAP" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib's, of its own dependencies
def test_the_pictures_of_lattice_and_weights_are_drawn_from_the_code(tmp_path):
    pictures = program("pictures")
    for draw in (pictures.lattice_picture, pictures.weights_picture):
        path = tmp_path / f"{draw.__name__}.png"
        pictures.save(draw(), path)
        with Image.open(path) as image:
            assert image.width > 600
            assert len(image.convert("RGB").getcolors(1 << 20)) > 4
        assert path.stat().st_size < 100_000


def test_every_picture_on_a_page_is_one_that_a_program_makes():
    source = "".join((DOCS / f"{name}.py").read_text() for name in ("pictures", "screenshots"))
    for path in (DOCS / "pictures").glob("*.png"):
        assert f'"{path.name}"' in source, path.name


def test_the_citation_is_of_this_version():
    import yaml

    import tilemapper

    cited = yaml.safe_load((DOCS.parent / "CITATION.cff").read_text())
    assert cited["version"] == tilemapper.__version__
    assert cited["cff-version"] == "1.2.0"
    assert {"title", "authors", "message"} <= set(cited)
