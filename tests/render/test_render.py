"""`tilemapper.render` on rasters on disk: pixels, georeferencing, masks, COG, resume, refusals."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import warnings
import zlib
from dataclasses import asdict

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

import tilemapper
from tests.conftest import noise, read_raster, write_raster
from tilemapper.errors import (
    DiskFullError,
    LockedError,
    OptionError,
    StagingError,
    TargetError,
)
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Lattice
from tilemapper.render import blockfile
from tilemapper.render import staging as staging_module
from tilemapper.render.blocks import serves
from tilemapper.render.engine import Engine, open_engine
from tilemapper.render.journal import Receipt, read_journal
from tilemapper.render.planning import plan_render
from tilemapper.render.render import render
from tilemapper.render.staging import locked, staging_folder
from tilemapper.render.stream import stream


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1300, 1), (3, 1500), (100, 300), (1100, 700)]
)
def test_an_identity_model_gives_the_source_back_as_a_valid_cog(
    make_raster, models, tmp_path, height, width
):
    city, target = make_raster(height, width), tmp_path / "map.tif"
    result = render(city, target, models / "identity")
    assert np.array_equal(read_raster(target), read_raster(city))
    valid, errors, hints = cog_validate(target, quiet=True)
    assert (valid, errors) == (True, [])
    assert width == 1 or not hints  # one pixel cannot be halved: no overviews
    with rasterio.open(target) as dst, rasterio.open(city) as src:
        assert dst.crs == src.crs
        assert dst.transform == src.transform
        assert [band.name for band in dst.colorinterp] == ["red", "green", "blue"]
        assert dst.tags()["TILEMAPPER_MODEL"] == "identity"
        assert dst.tags()["TIFFTAG_SOFTWARE"].startswith("tilemapper ")
        assert "not surveyed" in dst.tags()["TILEMAPPER_NOTE"]
        assert dst.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dst.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
    assert (result.height, result.width) == (height, width)
    assert not staging_folder(target).exists()


def test_the_package_itself_can_be_called(make_raster, models, tmp_path):
    result = tilemapper.render(make_raster(64, 64), tmp_path / "map.tif", models / "constant")
    assert (read_raster(tmp_path / "map.tif") == 200).all()
    assert result.tiles == 1


@pytest.mark.parametrize("overlap", [0, 64, 128])
def test_the_same_bytes_for_any_block_and_batch(make_raster, models, tmp_path, overlap):
    city = make_raster(540, 1060)
    digests = set()
    for block, batch in ((None, 8), (512, 8), (1024, 3)):
        target = tmp_path / f"map-{block}-{batch}.tif"
        render(city, target, models / "unet", block=block, batch_size=batch, overlap=overlap)
        digests.add(digest(target))
    assert len(digests) == 1


def test_overviews_are_the_same_however_blocks_are_cut_and_leave_masked_pixels_out(
    models, tmp_path
):
    pixels = np.full((3, 1500, 2100), 90, np.uint8)
    mask = np.ones(pixels.shape[1:], bool)
    mask[333:777, 101:999] = False
    pixels[:, ~mask] = 255
    city = write_raster(tmp_path / "city.tif", pixels, mask=mask)
    render(city, tmp_path / "whole.tif", models / "identity")
    render(city, tmp_path / "blocks.tif", models / "identity", block=512)
    assert digest(tmp_path / "whole.tif") == digest(tmp_path / "blocks.tif")
    with rasterio.open(tmp_path / "whole.tif") as dst:
        assert dst.overviews(1) == [2, 4, 8]
        assert np.array_equal(dst.dataset_mask() > 0, mask)
        assert np.array_equal(dst.read(), pixels * mask)
    with rasterio.open(tmp_path / "whole.tif", overview_level=2) as small:
        kept = small.dataset_mask() > 0
        assert (small.read()[:, kept] == 90).all()
        assert not kept.all()
    assert cog_validate(tmp_path / "whole.tif")[0]


def test_wholly_masked_blocks_take_no_room_and_no_tile(models, tmp_path):
    mask = np.zeros((1024, 3072), bool)
    mask[:, :400] = True
    city = write_raster(tmp_path / "city.tif", noise(1024, 3072), mask=mask)
    result = render(city, tmp_path / "map.tif", models / "identity", block=512)
    with rasterio.open(tmp_path / "map.tif") as dst:
        assert np.array_equal(dst.dataset_mask() > 0, mask)
    assert result.tiles < 60
    assert (tmp_path / "map.tif").stat().st_size < 1.1 * 3 * 1024 * 400 * 4 / 3 + 20_000


def test_rotated_and_south_up_grids_are_kept(models, tmp_path):
    for name, transform in (
        ("rotated", Affine(0.78, 0.45, 583000, 0.45, -0.78, 4507000)),
        ("south-up", Affine(0.9, 0, 583000, 0, 0.9, 4507000)),
    ):  # fmt: skip
        city = write_raster(tmp_path / f"{name}.tif", noise(300, 280), transform=transform)
        target = tmp_path / f"{name}-map.tif"
        render(city, target, models / "identity")
        assert np.array_equal(read_raster(target), read_raster(city))
        with rasterio.open(target) as dst:
            assert np.allclose(dst.transform[:6], transform[:6], rtol=1e-12)


def test_a_palette_model_writes_its_colours_and_its_classes(make_raster, models, tmp_path):
    city = make_raster(600, 700)
    render(city, tmp_path / "map.tif", models / "classes", classes=tmp_path / "classes.tif")
    expected = read_raster(city).argmax(axis=0)
    colours = np.array([(232, 228, 224), (177, 209, 255), (255, 255, 255)], np.uint8)
    assert np.array_equal(read_raster(tmp_path / "map.tif").transpose(1, 2, 0), colours[expected])
    with rasterio.open(tmp_path / "classes.tif") as dst:
        assert np.array_equal(dst.read(1), expected)
        assert dst.colormap(1)[1] == (177, 209, 255, 255)
        assert json.loads(dst.tags()["TILEMAPPER_CLASSES"]) == ["land", "water", "road"]
    assert cog_validate(tmp_path / "classes.tif")[0]


def test_classes_of_an_rgb_model_are_refused(make_raster, models, tmp_path):
    with pytest.raises(OptionError, match="paints RGB and has no classes"):
        render(
            make_raster(64, 64), tmp_path / "m.tif", models / "identity", classes=tmp_path / "c.tif"
        )


@pytest.mark.parametrize(
    ("driver", "options", "lossless"),
    [
        ("COG", {"COMPRESS": "ZSTD", "LEVEL": "3"}, True),
        ("COG", {"COMPRESS": "LZW"}, True),
        ("COG", {"COMPRESS": "JPEG", "QUALITY": "90"}, False),
        ("COG", {"BLOCKSIZE": "256"}, True),
        ("GTiff", {}, True),
        ("GTiff", {"COMPRESS": "LZW", "TILED": "NO"}, True),
    ],
)
def test_drivers_and_creation_options(make_raster, models, tmp_path, driver, options, lossless):
    city, target = make_raster(700, 600), tmp_path / "map.tif"
    render(city, target, models / "identity", driver=driver, creation_options=options)
    if lossless:
        assert np.array_equal(read_raster(target), read_raster(city))
    with rasterio.open(target) as dst:
        assert dst.tags()["TILEMAPPER_MODEL"] == "identity"
        if "COMPRESS" in options:
            assert dst.profile["compress"].upper().startswith(options["COMPRESS"][:4])
    assert driver == "GTiff" or cog_validate(target)[0]


def interrupted_render(city, target, models, monkeypatch, after=2):
    """Ends a render by an error once ``after`` blocks are in the journal."""
    real = staging_module.Staging.append

    def append(self, receipt):
        if len(self.done) >= after:
            raise KeyboardInterrupt
        real(self, receipt)

    monkeypatch.setattr(staging_module.Staging, "append", append)
    with pytest.raises(KeyboardInterrupt):
        render(city, target, models / "unet", block=512)
    monkeypatch.setattr(staging_module.Staging, "append", real)


def test_the_same_command_resumes_and_ends_with_the_same_bytes(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(1060, 1060), tmp_path / "map.tif"
    render(city, tmp_path / "straight.tif", models / "unet", block=512)
    interrupted_render(city, target, models, monkeypatch)
    assert not target.exists()
    result = render(city, target, models / "unet")
    assert result.blocks_resumed == 2
    assert result.blocks == 9
    assert digest(target) == digest(tmp_path / "straight.tif")


def test_a_torn_journal_line_and_a_damaged_block_are_rendered_again(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(1060, 1060), tmp_path / "map.tif"
    render(city, tmp_path / "straight.tif", models / "unet", block=512)
    interrupted_render(city, target, models, monkeypatch, after=4)
    folder = staging_folder(target)
    journal = folder / "journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    told = read_journal(journal)
    assert len(told) == 3
    tiles = folder / "blocks" / told[0].block / "map.tiles"  # of another block than the torn line
    data = bytearray(tiles.read_bytes())
    data[len(data) // 2] ^= 1
    tiles.write_bytes(data)
    result = render(city, target, models / "unet")
    assert result.blocks_resumed == 2
    assert digest(target) == digest(tmp_path / "straight.tif")


def test_other_options_are_refused_until_restart(make_raster, models, tmp_path, monkeypatch):
    city, target = make_raster(1060, 1060), tmp_path / "map.tif"
    interrupted_render(city, target, models, monkeypatch)
    with pytest.raises(StagingError, match=r"with other overlap; .*--restart"):
        render(city, target, models / "unet", overlap=96)
    with pytest.raises(StagingError, match=r"with other model"):
        render(city, target, models / "identity")
    result = render(city, target, models / "unet", overlap=96, restart=True)
    assert result.blocks_resumed == 0


def test_an_existing_output_stays_until_the_end(make_raster, models, tmp_path, monkeypatch):
    city, target = make_raster(1060, 1060), tmp_path / "map.tif"
    target.write_bytes(b"old")
    with pytest.raises(TargetError, match="exists already; give --overwrite"):
        render(city, target, models / "identity")

    def fail(*_args, **_kw):
        assert target.read_bytes() == b"old"
        raise StagingError("stop")

    monkeypatch.setattr("tilemapper.render.finish._check", fail)
    with pytest.raises(StagingError):
        render(city, target, models / "identity", overwrite=True)
    assert target.read_bytes() == b"old"
    monkeypatch.undo()
    render(city, target, models / "identity", overwrite=True)
    assert np.array_equal(read_raster(target), read_raster(city))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["city.tif", "map.tif"]


def test_a_second_run_on_the_same_output_is_told_to_wait(make_raster, models, tmp_path):
    city, target = make_raster(64, 64), tmp_path / "map.tif"
    with locked(target), pytest.raises(LockedError, match="another run is rendering it"):
        render(city, target, models / "identity")
    render(city, target, models / "identity")


@pytest.mark.parametrize("layer", ["classes", "uncertainty"])
def test_a_second_run_on_the_same_layer_is_told_to_wait(make_raster, models, tmp_path, layer):
    city, path = make_raster(64, 64), tmp_path / "layer.tif"
    options = {"source": city, "model": models / "classes", layer: path}
    told = pytest.raises(LockedError, match=r"layer\.tif: another run is rendering it")

    def second(*_plan):
        with told:
            render(target=tmp_path / "second.tif", **options)
        with told:  # nor is it a map meanwhile
            render(city, path, models / "identity")

    render(target=tmp_path / "first.tif", on_plan=second, **options)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["city.tif", "first.tif", "layer.tif"]
    with locked(path), told:
        render(target=tmp_path / "second.tif", **options, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_layer_where_an_unfinished_render_lies_leaves_its_blocks_alone(
    make_raster, models, tmp_path
):
    city, path = make_raster(64, 64), tmp_path / "layer.tif"
    with locked(path) as folder:
        (folder / "journal").write_text("kept")
    render(city, tmp_path / "map.tif", models / "classes", classes=path)
    assert (folder / "journal").read_text() == "kept"


def test_the_source_is_never_the_output(make_raster, models, tmp_path):
    city = make_raster(64, 64)
    before = city.read_bytes()
    link = tmp_path / "link.tif"
    link.symlink_to(city)
    hard = tmp_path / "hard.tif"
    os.link(city, hard)
    for target in (city, link, hard, tmp_path / "." / "city.tif"):
        with pytest.raises(TargetError, match="is the source itself"):
            render(city, target, models / "identity", overwrite=True)
    assert city.read_bytes() == before


@pytest.mark.parametrize("layer", ["map", "uncertainty"])
def test_a_link_that_leads_nowhere_is_not_replaced_unasked(make_raster, models, tmp_path, layer):
    city, link, loop = make_raster(64, 64), tmp_path / "link.tif", tmp_path / "loop.tif"
    link.symlink_to("unmounted/link.tif")
    loop.symlink_to("loop.tif")
    for path in (link, loop):
        outputs = {"target": path}
        if layer != "map":
            outputs = {"target": tmp_path / f"{path.stem}_map.tif", layer: path}
        with pytest.raises(TargetError, match=f"{path.name}: exists already; give --overwrite"):
            render(city, model=models / "identity", **outputs)
        assert path.is_symlink()
        render(city, model=models / "identity", **outputs, overwrite=True)
        assert path.is_file() and not path.is_symlink()


@pytest.mark.parametrize("layer", ["map", "uncertainty"])
def test_no_file_behind_the_source_is_the_output(make_raster, models, tmp_path, layer):
    city, district = make_raster(64, 64), tmp_path / "district.vrt"
    rasterio.shutil.copy(city, district, driver="VRT")
    before = city.read_bytes()
    options = {"overwrite": True, "allow_drivers": ["VRT"]}
    target = city
    if layer != "map":
        target = tmp_path / "map.tif"
        options[layer] = city
    with pytest.raises(TargetError, match="is made of it; choose another output"):
        render(district, target, models / "identity", **options)
    assert city.read_bytes() == before


def test_a_missing_folder_and_a_folder_as_output_are_refused(make_raster, models, tmp_path):
    city = make_raster(64, 64)
    with pytest.raises(TargetError, match="no such folder"):
        render(city, tmp_path / "no" / "map.tif", models / "identity")
    with pytest.raises(TargetError, match="is a folder"):
        render(city, tmp_path, models / "identity", overwrite=True)


@pytest.mark.parametrize("layer", ["map", "uncertainty"])
def test_a_pipe_or_device_is_not_replaced_by_a_map(make_raster, models, tmp_path, layer):
    """As root ``/dev/stdout --overwrite`` put the map into the place of the machine's own link."""
    os.mkfifo(pipe := tmp_path / "pipe.tif")
    target, options = (pipe, {}) if layer == "map" else (tmp_path / "map.tif", {layer: pipe})
    for overwrite in (False, True):
        with pytest.raises(TargetError, match=r"pipe\.tif: is no regular file; choose another"):
            render(make_raster(64, 64), target, models / "identity", overwrite=overwrite, **options)
    assert pipe.is_fifo()


@pytest.mark.parametrize("address", ["s3://b/x.tif", "https://host/x.tif", "/vsis3/b/x.tif"])
def test_an_output_that_is_no_local_path_is_refused(make_raster, models, address):
    with pytest.raises(TargetError, match="must be a local path; write it there and copy it"):
        render(make_raster(64, 64), address, models / "identity")


def test_a_full_disk_keeps_finished_blocks(make_raster, models, tmp_path, monkeypatch):
    city, target = make_raster(1060, 1060), tmp_path / "map.tif"
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 25:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="No space left"):
        render(city, target, models / "identity", block=512)
    monkeypatch.undo()
    assert not target.exists()
    result = render(city, target, models / "identity", block=512)
    assert result.blocks_resumed > 0
    assert np.array_equal(read_raster(target), read_raster(city))


def test_a_block_that_reads_back_otherwise_is_never_journalled(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(300, 300), tmp_path / "map.tif"
    monkeypatch.setattr(blockfile, "file_sha256", lambda _path: "0" * 64)
    with pytest.raises(StagingError, match="reads back other than it was written"):
        render(city, target, models / "identity")
    assert not read_journal(staging_folder(target) / "journal")
    assert not target.exists()


def test_a_journal_line_needs_its_checksum(tmp_path):
    body = json.dumps(asdict(Receipt("x", {}, {}, True, False, tiles=1))).encode()
    good = b"%08x %s\n" % (zlib.crc32(body), body)
    (tmp_path / "journal").write_bytes(
        good + good.replace(b'"tiles": 1', b'"tiles": 2') + good[:40]
    )
    assert [receipt.tiles for receipt in read_journal(tmp_path / "journal")] == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 50}, "overlap 50"),
        ({"block": 500}, "--block 500: must be a multiple of 512"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": 10**6}, "--batch-size 1000000: must be from 1 to 4096"),
        ({"driver": "PNG"}, "--driver 'PNG'"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"precision": "fp8"}, "precision 'fp8'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(make_raster, models, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        render(make_raster(64, 64), tmp_path / "map.tif", models / "identity", **options)
    assert not staging_folder(tmp_path / "map.tif").exists()


def test_the_mean_over_symmetries_changes_nothing_for_a_symmetric_generator(
    make_raster, models, tmp_path
):
    city = make_raster(300, 400)
    render(city, tmp_path / "map.tif", models / "identity", tta=True)
    assert np.array_equal(read_raster(tmp_path / "map.tif"), read_raster(city))


def test_the_mean_over_symmetries_does_not_know_up_from_down(models, tmp_path):
    pixels = noise(256, 256)
    for name, image in (("up", pixels), ("down", pixels[:, ::-1, ::-1])):
        city = write_raster(tmp_path / f"{name}.tif", image)
        # Bounds of the lattice are not symmetric, a single tile's own pixels are.
        engine = open_engine(open_model(models / "unet"), device="cpu", precision="fp32")
        turned = Engine(engine.model, precision="fp32", batch_size=1, tta=True)
        tile = read_raster(city).transpose(1, 2, 0)[None]
        prediction = turned.predict(np.ascontiguousarray(tile))[0]
        if name == "up":
            first = prediction
    assert np.abs(first[:, ::-1, ::-1] - prediction).max() <= 1


def test_uncertainty_is_zero_where_tiles_agree_and_shows_where_they_do_not(
    make_raster, models, tmp_path
):
    city = make_raster(500, 600)
    for model in ("identity", "unet"):
        render(
            city, tmp_path / f"{model}.tif", models / model, uncertainty=tmp_path / f"{model}-u.tif"
        )
    assert not read_raster(tmp_path / "identity-u.tif").any()
    doubt = read_raster(tmp_path / "unet-u.tif")[0]
    assert doubt.any()
    lattice = Lattice(500, 600)
    once = np.zeros((500, 600), int)
    for row in lattice.rows.starts:
        for col in lattice.cols.starts:
            once[max(row, 0) : row + 256, max(col, 0) : col + 256] += 1
    assert not doubt[once == 1].any()


def test_the_entropy_of_a_palette_model_is_high_where_classes_are_alike(models, tmp_path):
    pixels = np.zeros((3, 300, 600), np.uint8)
    pixels[0, :, :300] = 255
    pixels[:, :, 300:] = 128
    city = write_raster(tmp_path / "city.tif", pixels)
    render(city, tmp_path / "map.tif", models / "classes", uncertainty=tmp_path / "u.tif")
    doubt = read_raster(tmp_path / "u.tif")[0]
    assert (doubt[:, 300:] == 255).all()
    # softmax of (1, -1, -1): probabilities .787, .107, .107
    assert np.abs(doubt[:, :200].astype(int) - round(255 * 0.6088)).max() <= 1


@pytest.mark.parametrize("layer", ["target", "uncertainty"])
def test_a_name_of_another_kind_of_file_is_refused(make_raster, models, tmp_path, layer):
    outputs = {"target": tmp_path / "map.tif", layer: tmp_path / "map.PNG"}
    with pytest.raises(OptionError, match=r"map\.PNG: \.png is another kind .* name it map\.tif"):
        render(make_raster(64, 64), model=models / "identity", **outputs)
    assert not list(tmp_path.glob("map*"))


def test_auto_is_a_number_left_open_from_python_too(make_raster, models, tmp_path):
    city = make_raster(300, 300)
    for name, options in (
        ("plain.tif", {}),
        ("auto.tif", {"batch_size": "auto", "block": "auto", "bidx": None, "compile": False}),
    ):
        render(city, tmp_path / name, models / "identity", **options)
    assert digest(tmp_path / "plain.tif") == digest(tmp_path / "auto.tif")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": "many"}, "batch_size 'many': a number or auto is needed"),
        ({"block": "1024"}, "block '1024': a number or auto is needed"),
        ({"bidx": "1,2,3"}, r"bidx '1,2,3': numbers of bands are needed, such as \(1, 2, 3\)"),
    ],
)
def test_words_for_numbers_are_refused_from_python(make_raster, models, tmp_path, options, said):
    with pytest.raises(OptionError, match=said):
        render(make_raster(64, 64), tmp_path / "map.tif", models / "identity", **options)


def test_an_engine_of_another_model_paints_nothing(make_raster, models, tmp_path):
    """Its map would carry the name of a model that never saw the raster."""
    city, other = make_raster(100, 100), Engine(open_model(models / "constant"))
    render(city, tmp_path / "map.tif", models / "identity", engine=other, gsd="native")
    assert np.array_equal(read_raster(tmp_path / "map.tif"), read_raster(city))


@pytest.mark.parametrize("other", [{"precision": "bf16"}, {"tta": True}])
def test_an_engine_that_paints_otherwise_than_planned_paints_nothing(
    make_raster, models, tmp_path, monkeypatch, other
):
    city, model = make_raster(100, 100), open_model(models / "unet")
    engine = Engine(model, **other)
    monkeypatch.setattr(engine, "predict", None)
    options = {"engine": engine, "precision": "fp32", "device": "cpu", "gsd": "native"}
    render(city, tmp_path / "map.tif", model, **options)
    assert len(list(stream(city, model, **options))) == 1


def test_an_engine_elsewhere_than_planned_paints_nothing(make_raster, models):
    """A map of a GPU, finished after a kill without that engine, would be a CPU's in part."""
    model = open_model(models / "unet")
    plan = plan_render(make_raster(64, 64), None, model, device="cpu", precision="fp32")
    engine = Engine(model, batch_size=plan.batch_size)
    assert serves(engine, plan)
    assert not serves(engine, dataclasses.replace(plan, device="cuda:0"))


def test_compile_has_the_commands_name(make_raster, models, tmp_path):
    model = open_model(models / "identity")
    options = {"compile": True, "device": "cpu"}
    plan = plan_render(make_raster(64, 64), tmp_path / "map.tif", model, **options)
    assert plan.compiled


def test_two_layers_on_one_file_are_refused(make_raster, models, tmp_path):
    with pytest.raises(OptionError, match="would be one file"):
        render(
            make_raster(64, 64),
            tmp_path / "m.tif",
            models / "identity",
            uncertainty=tmp_path / "m.tif",
        )


def test_killed_after_the_rename_the_same_command_ends_well(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(700, 700), tmp_path / "map.tif"

    def killed(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(staging_module.Staging, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        render(city, target, models / "identity", block=512)
    monkeypatch.undo()
    finished = digest(target)
    result = render(city, target, models / "identity", block=512)
    assert result.blocks_resumed == 4
    assert digest(target) == finished
    assert not staging_folder(target).exists()
    with pytest.raises(TargetError, match="exists already"):
        render(city, target, models / "identity", block=512)


def test_a_raster_without_a_place_on_earth_renders_without_a_warning(models, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        city = write_raster(tmp_path / "city.tif", noise(90, 80), crs=None, transform=None)
    result = render(city, tmp_path / "map.tif", models / "identity")
    assert any("no georeferencing" in notice for notice in result.notices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "map.tif") as dst:
            assert dst.crs is None
            assert dst.transform.is_identity
            assert np.array_equal(dst.read(), read_raster(city))


@pytest.mark.parametrize(
    ("driver", "options"),
    [("COG", {"COMPRESS": "FOO"}), ("COG", {"COMPRES": "ZSTD"}), ("GTiff", {"COMPRESS": "FOO"})],
)
def test_unknown_creation_options_are_refused(make_raster, models, tmp_path, driver, options):
    city, target = make_raster(64, 64), tmp_path / "map.tif"
    with pytest.raises(OptionError, match="--co COMPRES"):
        render(city, target, models / "identity", driver=driver, creation_options=options)
    assert not target.exists()
