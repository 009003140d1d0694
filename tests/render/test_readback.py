"""A raster that is joined otherwise than it was rendered never gets its name."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tests.conftest import noise, read_raster, write_raster
from tilemapper.errors import DiskFullError, StagingError
from tilemapper.networks.model import open_model
from tilemapper.raster.stored import LevelReader, StoredBlocks
from tilemapper.raster.summed import Summed, file_crc32
from tilemapper.raster.tiff import OFFSETS, PREDICTOR
from tilemapper.render import finish, joining
from tilemapper.render.blockfile import PixelHash
from tilemapper.render.blocks import render_blocks
from tilemapper.render.plan import Plan
from tilemapper.render.planning import plan_render
from tilemapper.render.readback import check_joined
from tilemapper.render.render import render
from tilemapper.render.staging import Staging, locked, open_staging
from tilemapper.render.translating import translate

# Four levels, of which blocks of 1024 px have two: the others are made while joining.
HEIGHT, WIDTH = 2100, 1100


@pytest.fixture(scope="module")
def staging(models, tmp_path_factory) -> Iterator[Staging]:
    """All blocks of a raster with a hole, staged, and not yet joined."""
    folder = tmp_path_factory.mktemp("staged")
    keep = np.ones((HEIGHT, WIDTH), bool)
    keep[100:1800, 200:1000] = False
    city = write_raster(folder / "city.tif", noise(HEIGHT, WIDTH), mask=keep)
    model = open_model(models / "identity")
    plan = plan_render(city, folder / "map.tif", model, block=1024)
    with locked(folder / "map.tif") as part:
        staging = open_staging(part, plan, restart=False)
        for receipt in render_blocks(plan, model, plan.blocks, staging.blocks, None):
            staging.append(receipt)
        yield staging


@pytest.fixture
def made(tmp_path) -> Iterator[BinaryIO]:
    """A file for what is made while joining."""
    with (tmp_path / "made").open("w+b") as file:
        yield file


def place(path: Path, directory: int) -> tuple[int, int]:
    with StoredBlocks(path) as stored:
        return stored.place(directory, 0, 0)


def flip_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def damage_a_block(directory: int):
    """A byte in the middle of the first file block, or mask, of a directory."""

    def damage(path: Path) -> None:
        at, size = place(path, directory)
        flip_a_byte(path, at + size // 2)

    return damage


def entry(path: Path, tag: int) -> int:
    """Where the value of a tag of the first directory, or its offset, is in a classic TIFF."""
    data = path.read_bytes()
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    entries = {
        struct.unpack_from("<H", data, at)[0]: at
        for at in range(first + 2, first + 2 + 12 * count, 12)
    }
    return entries[tag] + 8


def swap_two_blocks(path: Path) -> None:
    """The first directory has the offsets of its first two file blocks exchanged."""
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, entry(path, OFFSETS))
    data[at : at + 8] = data[at + 4 : at + 8] + data[at : at + 4]
    path.write_bytes(data)


def forget_the_predictor(path: Path) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, entry(path, PREDICTOR), 1)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_a_block(0), "block r0000000-c0000000 reads back other than it was rendered"),
        (damage_a_block(1), "block r0000000-c0000000 reads back other than it was rendered"),
        (damage_a_block(3), "block r0000000-c0000000 reads back other than it was rendered"),
        (damage_a_block(4), "made while joining reads back other than it was rendered"),
        (damage_a_block(7), "made while joining reads back other than it was rendered"),
        (swap_two_blocks, "r0000000-c0000000 reads back other|GDAL finds another file block"),
        (forget_the_predictor, "GDAL reads other pixels than were written at level 0"),
    ],
    ids=["pixels", "mask", "overview's mask", "top level", "top mask", "order", "predictor"],
)
def test_what_was_joined_wrongly_is_found_at_every_level(staging, tmp_path, made, damage, message):
    path, layer = tmp_path / "map.tif", staging.plan.layers[0]
    joined = joining.join(staging, layer, {}, path, made)
    check_joined(staging, layer, joined, path)
    damage(path)
    with pytest.raises(StagingError, match="the joined file reads back other than it was written"):
        check_joined(staging, layer, joined, path)
    with pytest.raises(StagingError, match=message):  # as if it had been written so
        check_joined(staging, layer, replace(joined, crc32=file_crc32(path)), path)


@pytest.mark.parametrize("at", [9, 300, -3])
def test_what_the_disk_changed_after_writing_is_found_anywhere_in_the_file(
    staging, tmp_path, made, at
):
    path, layer = tmp_path / "map.tif", staging.plan.layers[0]
    joined = joining.join(staging, layer, {}, path, made)
    flip_a_byte(path, at)
    with pytest.raises(StagingError, match="the joined file reads back other than it was written"):
        check_joined(staging, layer, joined, path)


@pytest.mark.parametrize("name", ["map.tiles", "map.json", "map.rest"])
def test_a_part_that_is_damaged_before_it_is_joined_is_found_and_rendered_again(
    make_raster, models, tmp_path, monkeypatch, name
):
    city, target = make_raster(700, 1100), tmp_path / "map.tif"
    join = joining.join

    def damaged(staging, *others):
        part = staging.blocks / staging.plan.blocks[1].name / name
        flip_a_byte(part, part.stat().st_size // 2)
        return join(staging, *others)

    monkeypatch.setattr(finish, "join", damaged)
    with pytest.raises(StagingError, match=r"reads (back )?other than it was"):
        render(city, target, models / "identity", block=512)
    assert not target.exists()
    monkeypatch.undo()
    assert render(city, target, models / "identity", block=512).blocks_resumed == 5
    assert np.array_equal(read_raster(target), read_raster(city))


def files_open_below(folder):
    """How many files of a folder this process has open; other tests' may be closed meanwhile."""
    found = 0
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found += handle.readlink().is_relative_to(folder)
    return found


def test_joining_keeps_no_more_files_open_than_a_row_of_blocks_has(
    make_raster, models, tmp_path, monkeypatch
):
    """A raster of thousands of blocks would otherwise end with too many open files."""
    opened = []

    class Counting(Summed):
        def write(self, data: bytes | memoryview) -> int:
            opened.append(files_open_below(tmp_path))
            return super().write(data)

    monkeypatch.setattr(joining, "Summed", Counting)
    render(make_raster(512 * 6, 100), tmp_path / "map.tif", models / "identity", block=512)
    assert max(opened) - min(opened) <= 2


@pytest.mark.parametrize("bands", [1, 3])
def test_a_level_reader_agrees_with_gdal_written_rasters(tmp_path, bands):
    """The directories and pixels of a raster that we did not write."""
    pixels = noise(700, 900)[:bands]
    keep = np.ones((700, 900), bool)
    keep[50:90, 600:] = False
    path = write_raster(
        tmp_path / "a.tif", pixels, mask=keep, tiled=True, blockxsize=256, blockysize=256,
        compress="deflate", predictor=2, interleave="pixel",
    )  # fmt: skip
    data = path.read_bytes()
    with StoredBlocks(path) as stored, LevelReader(path, 0, 256) as reader:
        for row, col in ((0, 0), (2, 3)):
            at, size = stored.place(0, row, col)
            mask_at, mask_size = stored.place(1, row, col)
            streams = (data[at : at + size], data[mask_at : mask_at + mask_size])
            assert reader.shows(row, col, *streams, predictor=True)
            assert not reader.shows(row, col, *streams, predictor=False)
            assert reader.shows(row, col, streams[0], b"", predictor=True)
            # As a short read would give them.
            assert not reader.shows(row, col, streams[0][:-9], streams[1], predictor=True)
            assert not reader.shows(row, col, streams[0], streams[1][:-9], predictor=True)
            assert not reader.shows(row, col, b"", streams[1], predictor=True)
        at, size = stored.place(0, 0, 2)
        assert not reader.shows(0, 2, data[at : at + size], b"", predictor=True)
        assert stored.place(0, 9, 9) == (0, 0)


def test_zstd_is_read_back_pixel_by_pixel(make_raster, models, tmp_path):
    city, target = make_raster(600, 700), tmp_path / "map.tif"
    render(city, target, models / "identity", creation_options={"COMPRESS": "ZSTD"})
    with rasterio.open(target) as src:
        assert src.profile["compress"] == "zstd"
    assert np.array_equal(read_raster(target), read_raster(city))


def damaged_translation(part: Path, plan: Plan, target: Path) -> None:
    """As `translate`, on a disk that changes a pixel."""
    translate(part, plan, target)
    with rasterio.open(part, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
        pixel = dst.read(window=Window(300, 300, 1, 1))
        dst.write(pixel ^ 1, window=Window(300, 300, 1, 1))


@pytest.mark.parametrize(
    ("options", "compared"),
    [
        ({"driver": "GTiff"}, True),
        ({"creation_options": {"BLOCKSIZE": "256"}}, True),
        ({"creation_options": {"COMPRESS": "JPEG"}}, False),
        ({"creation_options": {"LEVEL": "1"}}, False),
    ],
    ids=["another driver", "another block size", "loses by itself", "our own"],
)
def test_pixels_that_gdal_writes_are_compared_and_others_are_not_summed(
    make_raster, models, tmp_path, monkeypatch, options, compared
):
    city, target = make_raster(700, 600), tmp_path / "map.tif"
    summed = []
    add = PixelHash.add
    monkeypatch.setattr(
        PixelHash, "add", lambda self, *rows: (summed.append(1), add(self, *rows))[1]
    )
    monkeypatch.setattr(finish, "translate", damaged_translation)
    if compared:
        with pytest.raises(StagingError, match="reads back other than it was rendered"):
            render(city, target, models / "identity", **options)
        assert not target.exists()
    else:
        render(city, target, models / "identity", **options)
    assert bool(summed) == compared


def test_a_sync_that_fails_beside_the_comparison_is_not_lost(
    make_raster, models, tmp_path, monkeypatch
):
    def fails(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    city, target = make_raster(300, 300), tmp_path / "map.tif"
    monkeypatch.setattr(finish, "fsync_file", fails)
    with pytest.raises(DiskFullError, match=r"map\.tif: No space left"):
        render(city, target, models / "identity")
    assert not target.exists()
    monkeypatch.undo()
    render(city, target, models / "identity")
    assert target.exists()
