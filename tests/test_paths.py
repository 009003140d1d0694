"""Paths as somebody typed them, where links lead nowhere."""

import pytest

from tilemapper.cli.main import cli, run
from tilemapper.paths import real_path
from tilemapper.training.pairs import open_pairs


@pytest.fixture
def loop(tmp_path):
    """A link to itself, with the name of an image."""
    link = tmp_path / "loop.png"
    link.symlink_to(link)
    return link


def test_links_are_followed_as_far_as_they_lead(tmp_path, loop):
    (tmp_path / "there").symlink_to(tmp_path)
    assert real_path(tmp_path / "there" / "a.tif") == real_path(tmp_path) / "a.tif"
    assert real_path(loop) == loop


def test_a_link_to_itself_is_an_input_like_any_other_that_cannot_be_read(loop, capsys):
    assert run(cli, ["serve", str(loop), "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Too many levels of symbolic links" in error
    assert "defect" not in error and error.count("\n") == 1


def test_a_pair_that_is_a_link_to_itself_has_a_place(loop):
    assert open_pairs(loop.parent).place(0) == (loop, 0)
