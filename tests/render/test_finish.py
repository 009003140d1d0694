"""What goes wrong at the end of a block or of a render is told as what it is."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from tests.conftest import read_raster, write_raster
from tilemapper.errors import DiskFullError, StagingError, TargetError
from tilemapper.render import finish, translating
from tilemapper.render.journal import Receipt, read_journal
from tilemapper.render.render import render

FULL = os.strerror(errno.ENOSPC)


def test_a_full_disk_that_is_met_again_while_a_blocks_file_is_closed_is_still_one(
    models, tmp_path, monkeypatch
):
    """The little that could not be written is tried once more by close: it fails the same way."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *more, **options):
        if path.name == "map.tiles" and mode == "wb":
            return real(Path("/dev/full"), mode)
        return real(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", opened)
    flat = write_raster(tmp_path / "flat.tif", np.full((3, 300, 300), 7, np.uint8))
    with pytest.raises(DiskFullError, match=FULL):
        render(flat, tmp_path / "map.tif", models / "identity")
    assert not (tmp_path / "map.tif").exists()


def test_a_full_disk_that_gdal_only_prints_leaves_no_map(
    make_raster, models, tmp_path, monkeypatch, capfd
):
    def copied(_source: str, again: str, **_options: object) -> None:
        Path(again).write_bytes(b"II*\0, cut off")
        os.write(2, f"_tiffWriteProc: {FULL}.\n".encode())

    monkeypatch.setattr(rasterio.shutil, "copy", copied)
    target = tmp_path / "map.tif"
    with pytest.raises(DiskFullError, match=rf"map\.tif: {FULL}; free some space"):
        render(make_raster(300, 300), target, models / "identity", driver="GTiff")
    assert not target.exists()
    assert capfd.readouterr().err == ""


def other_tag(path: str) -> None:
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(TILEMAPPER_MODEL="another")


def other_place(path: str) -> None:
    with rasterio.open(path, "r+") as dst:
        dst.transform = dst.transform @ Affine.translation(1e-3, 0)


@pytest.mark.parametrize(
    ("change", "word"), [(other_tag, "tag TILEMAPPER_MODEL"), (other_place, "transform")]
)
def test_what_gdal_writes_elsewhere_or_of_something_else_gets_no_name(
    make_raster, models, tmp_path, monkeypatch, change, word
):
    real = rasterio.shutil.copy

    def copied(source: str, again: str, **options: object) -> None:
        real(source, again, **options)
        change(again)

    monkeypatch.setattr(translating.rasterio.shutil, "copy", copied)
    target = tmp_path / "map.tif"
    with pytest.raises(StagingError, match=rf"map\.tif: GDAL wrote it with another {word}"):
        render(make_raster(300, 300), target, models / "identity", driver="GTiff")
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".aux.xml", ".msk", ".ovr"])
def test_a_sidecar_of_the_replaced_map_that_cannot_be_removed_is_told(
    make_raster, models, tmp_path, suffix
):
    city, target = make_raster(300, 300), tmp_path / "map.tif"
    target.write_bytes(b"an older map")
    Path(f"{target}{suffix}").mkdir()
    with pytest.raises(TargetError, match=rf"map\.tif{suffix}: belongs to the map that was rep"):
        render(city, target, models / "identity", overwrite=True)
    assert (read_raster(target) == read_raster(city)).all()


def test_the_disks_own_word_comes_before_what_was_read_back_meanwhile(
    make_raster, models, tmp_path, monkeypatch
):
    """A page that the disk did not take is dropped, and then reads as another."""

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, FULL)

    def otherwise(*_arguments: object) -> None:
        raise StagingError("map.tif: reads back other than it was written")

    monkeypatch.setattr(finish, "fsync_file", full)
    monkeypatch.setattr(finish, "_check", otherwise)
    with pytest.raises(DiskFullError, match=FULL):
        render(make_raster(300, 300), tmp_path / "map.tif", models / "identity")


def test_a_line_of_the_journal_that_another_version_wrote_is_left_out(tmp_path):
    def line(**more: object) -> str:
        body = json.dumps(asdict(Receipt("r0-c0", {}, {}, True, False)) | more)
        return f"{zlib.crc32(body.encode()):08x} {body}\n"

    path = tmp_path / "journal"
    path.write_text(line(words=3) + line() + "deadbeef []\n" + line(block="r0-c1"))
    assert [receipt.block for receipt in read_journal(path)] == ["r0-c0", "r0-c1"]


def test_a_line_of_the_journal_from_before_batches_were_noted_counts(tmp_path):
    fields = asdict(Receipt("r0-c0", {}, {}, True, False))
    del fields["batches"]
    body = json.dumps(fields)
    (tmp_path / "journal").write_text(f"{zlib.crc32(body.encode()):08x} {body}\n")
    assert [receipt.batches for receipt in read_journal(tmp_path / "journal")] == [()]


def test_blocks_may_be_staged_on_another_disk(models, tmp_path):
    """By a link; the map is finished beside its place, where a rename can bring it."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev or not os.access(
        "/dev/shm", os.W_OK
    ):
        pytest.skip("no second file system")
    city = write_raster(tmp_path / "city.tif", np.full((3, 300, 300), 7, np.uint8))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "map.tif.part").symlink_to(other)
        render(city, tmp_path / "map.tif", models / "identity")
    assert (read_raster(tmp_path / "map.tif") == 7).all()
