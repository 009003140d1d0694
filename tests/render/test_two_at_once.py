"""Two renders to one output: what the other one does at the worst moment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import read_raster
from tilemapper.errors import LockedError, TargetError
from tilemapper.render.render import render
from tilemapper.render.staging import locked, staging_folder

MODULE = sys.modules["tilemapper.render.render"]


def take_away(monkeypatch, *, times):
    """The other run ends, and its folder with it, as this one opens the lock in it."""
    real, left = Path.open, [times]

    def opened(path, *arguments, **options):
        if path.name == "lock" and left[0]:
            left[0] -= 1
            path.parent.rmdir()
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)


def test_a_folder_that_goes_as_its_lock_is_opened_is_made_again(tmp_path, monkeypatch):
    take_away(monkeypatch, times=2)
    with locked(tmp_path / "map.tif") as folder:
        assert (folder / "lock").exists()


def test_a_folder_that_comes_and_goes_all_the_time_is_another_runs(tmp_path, monkeypatch):
    take_away(monkeypatch, times=-1)
    with pytest.raises(LockedError, match="another run is rendering it"), locked(tmp_path / "m"):
        pass


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_folder_is_not_taken_for_another_run(tmp_path, link):
    folder = staging_folder(tmp_path / "map.tif")
    folder.symlink_to(tmp_path / "nowhere") if link else folder.touch()
    with pytest.raises(TargetError, match="cannot be written"), locked(tmp_path / "map.tif"):
        pass


def test_what_another_run_has_just_finished_is_not_rendered_to_be_refused(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(300, 300), tmp_path / "map.tif"

    def late(path):
        monkeypatch.setattr(MODULE, "locked", locked)
        render(city, target, models / "identity")
        return locked(path)

    monkeypatch.setattr(MODULE, "locked", late)
    begun = []
    with pytest.raises(TargetError, match="exists already"):
        render(city, target, models / "identity", on_plan=lambda *_: begun.append(1))
    assert not begun
    assert not staging_folder(target).exists()
    assert (read_raster(target) == read_raster(city)).all()
