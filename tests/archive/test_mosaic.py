from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.errors import RasterioIOError

from tests.archive.world import write_job
from tests.conftest import UTM, noise, write_raster
from tilemapper.archive import mosaic as mosaic_module
from tilemapper.archive.cutting import cut
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.mosaic import Member, Mosaic, _meet, _touching, mosaics_of
from tilemapper.archive.mosaic_vrt import vrt_text
from tilemapper.archive.part import Part
from tilemapper.archive.run import run_archive
from tilemapper.archive.scene import Scene
from tilemapper.archive.scenes import discover
from tilemapper.archive.units import listed
from tilemapper.errors import (
    DiskFullError,
    RasterError,
    ServerError,
    ShortageError,
    TargetError,
)
from tilemapper.networks.model import open_model
from tilemapper.render.render import render
from tilemapper.render.verify import verify

WHOLE = Affine(1, 0, 583_000, 0, -1, 4_507_000)
HEIGHT, WIDTH = 320, 400
# Row, col, height, width of scenes that overlap or just touch, and cover the whole.
WINDOWS = {"a": (0, 0, 180, 210), "b": (0, 200, 180, 200), "c": (180, 0, 140, 400)}


def at(row: int, col: int) -> Affine:
    return Affine(1, 0, WHOLE.c + col, 0, -1, WHOLE.f - row)


@pytest.fixture
def pixels() -> np.ndarray:
    return noise(HEIGHT, WIDTH, seed=4)


@pytest.fixture
def pieces(tmp_path, pixels) -> Path:
    """One raster of noise, cut into three scenes."""
    (tmp_path / "in").mkdir()
    for name, (row, col, height, width) in WINDOWS.items():
        part = pixels[:, row : row + height, col : col + width]
        write_raster(tmp_path / "in" / f"{name}.tif", part, transform=at(row, col))
    return tmp_path


def job_over(folder: Path, model: Path, kind: str, template: str, more: str = ""):
    path = write_job(folder, model, render="batch_size = 1")
    text = path.read_text().replace("out/{relpath}_map", f"out/{template}")
    path.write_text(f'{text}\n[mosaic]\noutput = "{kind}"\n{more}\n')
    return load_job(path)


def member(name: str, row: int, col: int, height: int, width: int, step: float = 1.0) -> Member:
    grid = Affine(step, 0, WHOLE.c + col * step, 0, -step, WHOLE.f - row * step)
    bands = tuple(
        (band, "Byte", colour) for band, colour in ((1, "Red"), (2, "Green"), (3, "Blue"))
    )
    return Member(Scene(name, name), height, width, grid, (step,), UTM, bands)


def test_neighbours_are_those_that_any_two_compared_would_be():
    draw = np.random.default_rng(5)
    for count in (1, 30, 120):
        sizes = np.where(draw.random((count, 2)) < 0.1, 400, draw.integers(1, 60, (count, 2)))
        places = draw.integers(-900, 900, (count, 2))
        steps = draw.choice([0.3, 1.0], count)
        found = [
            member(f"{n:04d}", *map(int, (*places[n], *sizes[n])), float(steps[n]))
            for n in range(count)
        ]
        label = list(range(count))
        for one, other in itertools.combinations(range(count), 2):
            if _meet(found[one], found[other]):
                label = [label[one] if each == label[other] else each for each in label]
        groups = {tuple(m.scene.name for m in group) for group in _touching(found)}
        by_label = ([m for m, at in zip(found, label, strict=True) if at == one] for one in label)
        assert groups == {tuple(m.scene.name for m in group) for group in by_label}


def test_a_mosaic_of_thousands_of_scenes_is_made_in_seconds():
    """Compared each with each, or its grid asked for with each, it took minutes."""
    found = [member(f"{n:05d}", 40 * n, 0, 40, 40) for n in range(8000)]
    begun = time.process_time()
    (group,) = _touching(found)
    mosaic = Mosaic("column", tuple(group))
    assert mosaic.size == (320_000, 40)
    assert vrt_text(mosaic).count("<ComplexSource>") == 4 * len(found)
    assert time.process_time() - begun < 30


def test_a_giant_among_small_scenes_does_not_make_them_be_compared_each_with_each(monkeypatch):
    found = [member("giant", 0, 0, 90_000, 90_000)]
    found += [member(f"{n:04d}", n // 40 * 300, n % 40 * 300, 200, 200) for n in range(1600)]
    compared = []
    monkeypatch.setattr(
        mosaic_module, "_meet", lambda one, other: compared.append(one) or _meet(one, other)
    )
    (group,) = _touching(found)
    assert [m.scene.name for m in group] == [m.scene.name for m in found]
    assert len(compared) < 10 * len(found)


def whole_map(folder: Path, pixels: np.ndarray, model: Path) -> np.ndarray:
    """The map of the raster before it was cut."""
    write_raster(folder / "whole.tif", pixels, transform=WHOLE)
    render(folder / "whole.tif", folder / "whole_map.tif", open_model(model), batch_size=1)
    with rasterio.open(folder / "whole_map.tif") as src:
        return src.read()


def place_of(output: Path) -> tuple[int, int, int, int]:
    """Row, col, height, width of an output in the whole."""
    with rasterio.open(output) as src:
        row, col = round(WHOLE.f - src.transform.f), round(src.transform.c - WHOLE.c)
        return row, col, src.height, src.width


@pytest.mark.parametrize(
    ("kind", "name"), [("one", "identity"), ("scene", "unet"), ("cell", "identity")]
)
def test_a_mosaic_is_rendered_as_if_it_had_never_been_cut(pieces, pixels, models, kind, name):
    template = "{mosaic}_{row}_{col}" if kind == "cell" else "{stem}"
    more = "cell_px = 256" if kind == "cell" else ""
    job = job_over(pieces, models / name, kind, template, more)
    summary = run_archive(job, open_model(job.render.model))
    assert summary.exit_code == 0, summary.failures
    truth = whole_map(pieces, pixels, models / name)
    outputs = sorted(job.root.glob("*.tif"))
    assert len(outputs) == {"one": 1, "scene": 3, "cell": 4}[kind]
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for output in outputs:
        row, col, height, width = place_of(output)
        with rasterio.open(output) as src:
            inside = np.s_[row : row + height, col : col + width]
            # The same pixels, so also the same ones wherever two outputs overlap.
            assert (src.read() == truth[:, *inside]).all()
            assert src.crs == UTM
            assert "TILEMAPPER_MODEL" in src.tags()
            covered[inside] = True
    assert covered.all()
    places = {output.stem: place_of(output) for output in outputs}
    if kind == "scene":
        assert places == WINDOWS
    if kind == "cell":
        assert places == {
            "a_0_0": (0, 0, 256, 256), "a_0_1": (0, 256, 256, 144),
            "a_1_0": (256, 0, 64, 256), "a_1_1": (256, 256, 64, 144),
        }  # fmt: skip
    again = run_archive(job, open_model(job.render.model))
    assert (again.done, again.left, again.failed) == (0, 0, 0)


def test_a_piece_of_a_mosaic_is_verified_where_it_lies(tmp_path, models):
    (tmp_path / "in").mkdir()
    for name, col, width in (("a", 0, 530), ("b", 511, 523)):
        write_raster(tmp_path / "in" / f"{name}.tif", noise(40, width), transform=at(0, col))
    job = job_over(tmp_path, models / "classes", "scene", "{stem}")
    file = tmp_path / "nightly.toml"
    layers = "".join(f'{kind} = "out/{kind}/{{stem}}.tif"\n' for kind in ("classes", "uncertainty"))
    file.write_text(file.read_text().replace("[run]", f"{layers}[run]"))
    run_archive(load_job(file), open_model(job.render.model))
    (vrt,) = (job.work / "mosaics").glob("*.vrt")
    again = {"source": vrt, "model": models / "classes", "device": "cpu", "blocks": 1}
    piece = job.root / "b.tif"
    for path in (piece, job.root / "classes" / "b.tif", job.root / "uncertainty" / "b.tif"):
        verdict = verify(path, **again)
        assert (verdict.faults, verdict.blocks_rendered) == ([], 1)
    said = {"row 0, col 512": "transform", "row 1, col 511": "planned", "somewhere": "PIECE tag is"}
    for place, fault in said.items():
        with rasterio.open(piece, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
            dst.update_tags(TILEMAPPER_PIECE=place)
        try:
            assert fault in str(verify(piece, **again).faults)
        except RasterError as error:
            assert fault in str(error)


@pytest.mark.parametrize(("block", "kept"), [(512, 1), (1024, 0)])
def test_a_mosaic_that_was_interrupted_goes_on(tmp_path, models, block, kept):
    """Nobody can say --restart to an archive: blocks of another size are thrown away by itself."""
    for index in range(2):
        path = tmp_path / "in" / f"{index}.tif"
        path.parent.mkdir(exist_ok=True)
        write_raster(path, noise(40, 530, index), transform=at(0, 530 * index))
    job = job_over(tmp_path, models / "identity", "one", "{mosaic}")
    model, output = open_model(job.render.model), job.root / "0.tif"
    file = tmp_path / "nightly.toml"
    text = file.read_text()

    def stop(event):
        if event.get("tiles") == 0:  # a block is done
            raise KeyboardInterrupt

    file.write_text(text.replace("[run]", "block = 512\n[run]"))
    with pytest.raises(KeyboardInterrupt):
        run_archive(load_job(file), model, tell=stop)
    file.write_text(text.replace("[run]", f"block = {block}\n[run]"))
    summary = run_archive(load_job(file), model)
    assert summary.done == 1, summary.failures
    with Ledger(job.work / "ledger.sqlite") as ledger:
        (row,) = ledger.select()
    assert json.loads(row["facts"])["blocks_resumed"] == kept
    if kept:
        gone_on = output.read_bytes()
        shutil.rmtree(job.root)
        run_archive(load_job(file), model)
        assert output.read_bytes() == gone_on


@pytest.mark.parametrize("kind", ["one", "cell"])
def test_maps_that_lie_among_their_scenes_are_no_part_of_a_mosaic(pieces, models, kind):
    name = "{mosaic}_{row}_{col}" if kind == "cell" else "{stem}"
    job = job_over(pieces, models / "identity", kind, f"../in/maps/{name}_map")
    model = open_model(job.render.model)
    assert run_archive(job, model).failed == 0
    before = [unit.id for unit in listed(job)]
    again = run_archive(job, model)
    assert (again.done, again.failed, again.left) == (0, 0, 0)
    assert [unit.id for unit in listed(job)] == before and len(before) == {"one": 1, "cell": 2}[
        kind
    ]


def test_rendered_one_by_one_the_scenes_would_not_fit(pieces, pixels, models):
    """What the mosaic is for: without it, this network leaves a seam."""
    truth = whole_map(pieces, pixels, models / "unet")
    render(pieces / "in" / "a.tif", pieces / "a_map.tif", open_model(models / "unet"))
    with rasterio.open(pieces / "a_map.tif") as src:
        assert (src.read() != truth[:, :180, :210]).any()


@pytest.mark.parametrize("kind", ["scene", "cell"])
@pytest.mark.parametrize("filtered", ["min_px = 5000", "bounds = [10, 10, 11, 11]"])
def test_the_parts_of_a_mosaic_that_a_filter_leaves_out_are_skipped(pieces, models, kind, filtered):
    template = "{mosaic}_{row}_{col}" if kind == "cell" else "{stem}"
    job = job_over(pieces, models / "identity", kind, template)
    path = pieces / "nightly.toml"
    path.write_text(path.read_text().replace("[output]", f"{filtered}\n[output]"))
    job = load_job(path)
    parts = 3 if kind == "scene" else 1
    for _ in range(2):
        summary = run_archive(job, open_model(job.render.model))
        assert (summary.exit_code, summary.left, summary.skipped) == (0, 0, 1 + parts)


@pytest.mark.parametrize("error", [ServerError("away"), ShortageError("Too many open files")])
def test_a_mosaic_is_not_rendered_without_a_scene_that_cannot_be_opened_for_now(
    pieces, models, monkeypatch, error
):
    job = job_over(pieces, models / "identity", "one", "out/{mosaic}.tif")
    opened, calls = mosaic_module.open_raster, []

    def opening(path: str, **options):
        calls.append(path)
        if len(calls) == 2:
            raise error
        return opened(path, **options)

    monkeypatch.setattr(mosaic_module, "open_raster", opening)
    with pytest.raises(type(error), match=str(error)) as raised:
        run_archive(job, open_model(models / "identity"))
    assert raised.value.exit_code == 75
    assert run_archive(job, open_model(models / "identity")).exit_code == 0


def test_a_part_that_is_lost_is_cut_again_without_rendering(pieces, models, monkeypatch):
    job = job_over(pieces, models / "identity", "scene", "{stem}")
    model = open_model(job.render.model)
    run_archive(job, model)
    (job.root / "b.tif").unlink()
    told: list[dict] = []
    run_archive(job, model, tell=told.append)
    assert [event["output"] for event in told if event.get("state") == "done"] == [
        str(job.root / "b.tif")
    ]


def test_a_scene_that_changes_renders_its_mosaic_again(pieces, pixels, models):
    job = job_over(pieces, models / "identity", "scene", "{stem}")
    model = open_model(job.render.model)
    run_archive(job, model)
    write_raster(pieces / "in" / "b.tif", pixels[:, :180, 200:] // 2, transform=at(0, 200))
    assert run_archive(job, model).done == 4
    with rasterio.open(job.root / "b.tif") as src:
        assert (src.read()[:, :, 10:] == pixels[:, :180, 210:] // 2).all()


def test_masked_pixels_of_one_scene_never_hide_valid_ones_of_another(tmp_path, models):
    (tmp_path / "in").mkdir()
    left, right = noise(100, 100, 1) | 1, noise(100, 100, 2) | 1
    right[:, :, :40] = 0
    write_raster(tmp_path / "in" / "a.tif", left, transform=at(0, 0), nodata=0)
    write_raster(tmp_path / "in" / "b.tif", right, transform=at(0, 60), nodata=0)
    job = job_over(tmp_path, models / "identity", "one", "{mosaic}")
    assert run_archive(job, open_model(job.render.model)).done == 1
    with rasterio.open(job.root / "a.tif") as src:
        found = src.read()
        assert (src.dataset_mask() == 255).all()
    assert (found[:, :, :100] == left).all()
    assert (found[:, :, 100:] == right[:, :, 40:]).all()


def test_only_scenes_that_touch_on_one_grid_and_one_crs_are_joined(tmp_path, models):
    (tmp_path / "in").mkdir()
    grids = {
        "a": (at(0, 0), UTM), "touches": (at(0, 50), UTM), "apart": (at(0, 200), UTM),
        "shifted": (Affine(1, 0, WHOLE.c + 0.4, 0, -1, WHOLE.f), UTM),
        "other_crs": (at(0, 0), "EPSG:32619"),
        "other_size": (Affine(2, 0, WHOLE.c, 0, -2, WHOLE.f), UTM),
    }  # fmt: skip
    for seed, (name, (transform, crs)) in enumerate(grids.items()):
        path = tmp_path / "in" / f"{name}.tif"
        write_raster(path, noise(50, 50, seed), transform=transform, crs=crs)
    (tmp_path / "in" / "broken.tif").write_bytes(b"II*\0")
    job = job_over(tmp_path, models / "identity", "one", "{mosaic}")
    mosaics, alone = mosaics_of(job, discover(job.source))
    groups = [{member.scene.stem for member in mosaic.members} for mosaic in mosaics]
    assert {"a", "touches"} in groups
    assert len(groups) == 5
    assert [scene.stem for scene in alone] == ["broken"]
    assert "broken.tif" in alone[0].fault


def test_a_poisoned_scene_does_not_take_its_mosaic_with_it(pieces, models):
    (pieces / "in" / "empty.tif").write_bytes(b"")
    job = job_over(pieces, models / "identity", "one", "{mosaic}")
    summary = run_archive(job, open_model(job.render.model))
    assert (summary.done, summary.failed, summary.exit_code) == (1, 1, 3)
    assert "empty" in summary.failures[0]["error"]


def test_a_name_with_markup_cannot_add_to_the_virtual_raster(tmp_path, models):
    (tmp_path / "in").mkdir()
    name = "a&b<SourceFilename>.tif"
    write_raster(tmp_path / "in" / name, noise(20, 20), transform=at(0, 0))
    write_raster(tmp_path / "in" / "b.tif", noise(20, 20), transform=at(0, 20))
    job = job_over(tmp_path, models / "identity", "one", "{mosaic}")
    mosaics, _ = mosaics_of(job, discover(job.source))
    assert "a&amp;b&lt;SourceFilename&gt;.tif" in vrt_text(mosaics[0])
    assert run_archive(job, open_model(job.render.model)).done == 1


def test_a_signed_address_never_gets_into_a_virtual_raster(tmp_path, models):
    (tmp_path / "in").mkdir()
    job = job_over(tmp_path, models / "identity", "one", "{mosaic}")
    signed = Scene("https://user:pw@host.example/a.tif?sig=abc", "a")
    mosaics, alone = mosaics_of(job, [signed])
    assert not mosaics
    assert "holds a signature or password" in alone[0].fault
    assert "abc" not in alone[0].fault


def test_a_part_that_a_full_disk_does_not_take_ends_with_the_disks_own_reason(
    tmp_path, monkeypatch
):
    """libtiff prints it, GDAL says that some write failed."""
    full = os.strerror(errno.ENOSPC)

    def copied(*_arguments, **_options):
        os.write(2, f"_tiffWriteProc: {full}.\n".encode())
        raise RasterioIOError("write failed")

    monkeypatch.setattr(rasterio.shutil, "copy", copied)
    whole = write_raster(tmp_path / "whole.tif", noise(300, 300), transform=WHOLE)
    part = Part(str(whole), cell=(0, 0), cell_px=256)
    with pytest.raises(DiskFullError, match=rf"part\.tif: {full}"):
        cut(part, tmp_path / "part.tif", driver="COG", options={})


def test_a_part_that_is_not_to_keep_its_pixels_is_not_refused_for_it(tmp_path):
    whole = write_raster(tmp_path / "whole.tif", noise(40, 40), transform=WHOLE)
    part = Part(str(whole), cell=(0, 0), cell_px=256)
    assert cut(part, tmp_path / "part.tif", driver="GTiff", options={"COMPRESS": "webp"})


def test_a_part_whose_folder_cannot_be_written_is_no_defect(tmp_path):
    whole = write_raster(tmp_path / "whole.tif", noise(300, 300), transform=WHOLE)
    part = Part(str(whole), cell=(0, 0), cell_px=256)
    with pytest.raises(TargetError, match="cannot be written"):
        cut(part, tmp_path / "missing" / "part.tif", driver="COG", options={})


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_mosaic_of_other_numbers_than_bytes_is_as_if_never_cut(tmp_path, models, dtype):
    """Its alpha is of bytes all the same, and bands of two types are not read at once."""
    numbers = (noise(HEIGHT, WIDTH, seed=4).astype(dtype) * 17) - 300
    if dtype == "float32":
        numbers[:, 30:60, 190:230] = np.nan  # on both sides of a cut
    else:
        numbers = np.abs(numbers)
    (tmp_path / "in").mkdir()
    for name, (row, col, height, width) in WINDOWS.items():
        piece = numbers[:, row : row + height, col : col + width]
        write_raster(tmp_path / "in" / f"{name}.tif", piece, transform=at(row, col))
    job = job_over(tmp_path, models / "identity", "one", "{stem}")
    summary = run_archive(job, open_model(job.render.model))
    assert summary.exit_code == 0, summary.failures
    truth = whole_map(tmp_path, numbers, models / "identity")
    (output,) = job.root.glob("*.tif")
    with rasterio.open(output) as src, rasterio.open(tmp_path / "whole_map.tif") as whole:
        assert (src.read() == truth).all()
        assert (src.dataset_mask() == whole.dataset_mask()).all()
        assert (src.dataset_mask() == 0).any() == (dtype == "float32")
