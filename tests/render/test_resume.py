"""What an unfinished render may be gone on with, and what it must not be mixed with."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from tests.conftest import noise, read_raster, write_raster
from tilemapper.errors import DiskFullError, OtherPlanError, RasterError, StagingError, TargetError
from tilemapper.networks.model import open_model
from tilemapper.raster import identity, limits
from tilemapper.raster.opening import open_raster
from tilemapper.raster.stored import StoredBlocks
from tilemapper.render import finish as finish_module
from tilemapper.render import staging as staging_module
from tilemapper.render import targets as targets_module
from tilemapper.render.estimate import estimate
from tilemapper.render.planning import plan_render
from tilemapper.render.render import render
from tilemapper.render.staging import locked, staging_folder, stored_plan


@pytest.fixture
def interrupted(monkeypatch):
    """Renders until some blocks are in the journal, and then no further."""
    real = staging_module.Staging.append

    def run(city, target, model, *, after=2, **options):
        def append(self, receipt):
            if len(self.done) >= after:
                raise KeyboardInterrupt
            real(self, receipt)

        with monkeypatch.context() as patched:
            patched.setattr(staging_module.Staging, "append", append)
            with pytest.raises(KeyboardInterrupt):
                render(city, target, model, block=512, **options)

    return run


def test_blocks_of_another_size_are_not_taken_for_ones_own(
    make_raster, models, tmp_path, interrupted
):
    """They have the names of those that are asked for, and cover a part of them."""
    city, target = make_raster(1024, 1024), tmp_path / "map.tif"
    interrupted(city, target, models / "identity")
    with pytest.raises(StagingError, match=r"blocks of 512 px, 1024 px are asked.*--restart"):
        render(city, target, models / "identity", block=1024)
    assert render(city, target, models / "identity").blocks_resumed == 2
    assert np.array_equal(read_raster(target), read_raster(city))


@pytest.mark.parametrize("other", [{"overlap": 32}, {"block": 1024}], ids=str)
def test_a_dry_run_beside_other_blocks_refuses_what_the_run_would(
    make_raster, models, tmp_path, interrupted, other
):
    city, target = make_raster(600, 1500), tmp_path / "map.tif"
    interrupted(city, target, models / "identity")
    with pytest.raises(OtherPlanError) as run:
        render(city, target, models / "identity", **{"block": 512} | other)
    with pytest.raises(OtherPlanError) as dry:
        estimate(city, target, models / "identity", **{"block": 512} | other)
    assert str(dry.value) == str(run.value)
    assert estimate(city, target, models / "identity", restart=True, **other).blocks
    assert estimate(city, target, models / "identity", block=512).blocks == 6


def test_a_restart_chooses_its_blocks_anew(make_raster, models, tmp_path, interrupted):
    city, target = make_raster(1024, 1024), tmp_path / "map.tif"
    interrupted(city, target, models / "identity")
    result = render(city, target, models / "identity", restart=True)
    assert (result.blocks, result.blocks_resumed) == (1, 0)


@pytest.mark.parametrize("gone", ["journal", "blocks"])
def test_killed_while_it_tidied_up_the_same_command_does_the_rest(
    make_raster, models, tmp_path, monkeypatch, gone
):
    city, target = make_raster(1024, 700), tmp_path / "map.tif"
    with monkeypatch.context() as patched:
        patched.setattr(staging_module.Staging, "remove", lambda _self: None)
        render(city, target, models / "identity", block=512)
    folder = staging_folder(target)
    shutil.rmtree(folder / "blocks")
    if gone == "journal":
        (folder / "journal").unlink()
    written = target.stat().st_mtime_ns
    result = render(city, target, models / "identity")
    assert (result.tiles, result.blocks_resumed) == (0, 4)
    assert target.stat().st_mtime_ns == written
    assert not folder.exists()


def test_the_plan_is_removed_last_and_then_that_all_is_done(
    make_raster, models, tmp_path, monkeypatch
):
    """With the plan alone a run that was killed there would render all of it again."""
    seen = []
    target = tmp_path / "map.tif"
    real = shutil.rmtree

    def noted(path, **options):
        done = (staging_folder(target) / "finished").exists()
        seen.append((stored_plan(target) is not None, done, os.fspath(path)))
        real(path, **options)

    monkeypatch.setattr(staging_module.shutil, "rmtree", noted)
    render(make_raster(300, 300), target, models / "identity")
    assert seen[-2:] == [
        (True, True, str(staging_folder(target) / "blocks")),
        (False, True, str(staging_folder(target))),
    ]


def test_a_damaged_map_is_rendered_again_whatever_lies_beside_it(
    make_raster, models, tmp_path, interrupted
):
    """It has the tags of the very plan that is unfinished; they say nothing of its pixels."""
    city, target = make_raster(1024, 1024), tmp_path / "map.tif"
    render(city, target, models / "identity", block=512)
    good = target.read_bytes()
    target.write_bytes(good[:-200_000] + bytes(200_000))
    interrupted(city, target, models / "identity", overwrite=True)
    result = render(city, target, models / "identity", overwrite=True)
    assert result.blocks_resumed == 2
    assert target.read_bytes() == good


def test_killed_beside_the_overviews_of_an_older_map_the_next_run_removes_them(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(700, 700), tmp_path / "map.tif"
    write_raster(target, np.zeros((3, 700, 700), np.uint8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(target, "r+") as old:
        old.build_overviews([2])
    assert target.with_name("map.tif.ovr").exists()

    def killed(_target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(finish_module, "remove_stale_sidecars", killed)
        with pytest.raises(KeyboardInterrupt):
            render(city, target, models / "identity", overwrite=True)
    assert render(city, target, models / "identity").tiles == 0
    assert [path.name for path in tmp_path.glob("map*")] == ["map.tif"]
    assert np.array_equal(read_raster(target), read_raster(city))


def test_a_disk_needs_room_for_what_is_still_to_be_written(
    make_raster, models, tmp_path, monkeypatch, interrupted
):
    """What is done fills the disk already: it is not to be found free once more."""
    city, target = make_raster(1024, 1024), tmp_path / "map.tif"
    interrupted(city, target, models / "identity", after=3)
    usage = shutil.disk_usage(tmp_path)
    whole = 2 * 3 * 1024 * 1024 * 4 // 3 // 40  # bytes

    def free(share):
        room = usage._replace(free=int(share * whole))
        monkeypatch.setattr(targets_module.shutil, "disk_usage", lambda _path: room)

    free(0.6)
    with pytest.raises(DiskFullError):
        render(city, target, models / "identity")
    free(0.65)
    with monkeypatch.context() as patched:
        patched.setattr(staging_module.Staging, "remove", lambda _self: None)
        assert render(city, target, models / "identity").blocks_resumed == 3
    free(0)
    assert render(city, target, models / "identity").tiles == 0


def test_a_staging_folder_that_cannot_be_removed_does_not_fail_a_render_that_stands(
    make_raster, models, tmp_path, monkeypatch
):
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.name == "journal" and target.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path, missing_ok)

    city, target = make_raster(300, 300), tmp_path / "map.tif"
    monkeypatch.setattr(Path, "unlink", unlink)
    render(city, target, models / "identity")
    assert np.array_equal(read_raster(target), read_raster(city))


def test_a_target_that_appears_meanwhile_is_not_replaced(
    make_raster, models, tmp_path, monkeypatch
):
    city, target = make_raster(300, 300), tmp_path / "map.tif"

    def appears(_plan, _tiles):
        target.write_bytes(b"of another program")

    with pytest.raises(TargetError, match=r"map\.tif: exists already; give --overwrite"):
        render(city, target, models / "identity", on_plan=appears)
    assert target.read_bytes() == b"of another program"
    assert render(city, target, models / "identity", overwrite=True).blocks_resumed == 1


def vrt_of(source, path):
    copy_raster(source, path, driver="VRT")
    return path


def test_what_lies_behind_a_vrt_is_part_of_the_source(make_raster, models, tmp_path, interrupted):
    behind = make_raster(1024, 1024, "behind.tif")
    city, target = vrt_of(behind, tmp_path / "city.vrt"), tmp_path / "map.tif"
    options = {"allow_drivers": ["VRT"]}
    interrupted(city, target, models / "identity", **options)
    write_raster(behind, noise(1024, 1024, seed=1))
    with pytest.raises(StagingError, match="with other source"):
        render(city, target, models / "identity", **options)


def nested_vrt(make_raster, folder):
    """A raster, and a VRT of a VRT of it, which names the outer one too."""
    behind = make_raster(1024, 1024, "behind.tif")
    inner, city = vrt_of(behind, folder / "inner.vrt"), folder / "city.vrt"
    text = inner.read_text()
    city.write_text(text.replace("behind.tif", "inner.vrt"))
    with rasterio.open(city, driver="VRT") as src:
        assert "behind.tif" not in str(src.files)  # GDAL names what it opens first
    nowhere = """<SimpleSource>
      <SourceFilename relativeToVRT="1">city.vrt</SourceFilename><SourceBand>1</SourceBand>
      <SourceProperties RasterXSize="1024" RasterYSize="1024" DataType="Byte"/>
      <SrcRect xOff="0" yOff="0" xSize="1" ySize="1"/>
      <DstRect xOff="2000" yOff="0" xSize="1" ySize="1"/>
    </SimpleSource></VRTRasterBand>"""
    inner.write_text(text.replace("</VRTRasterBand>", nowhere, 1))
    return behind, city


def test_what_lies_behind_a_vrt_of_vrts_is_part_of_the_source(
    make_raster, models, tmp_path, interrupted
):
    behind, city = nested_vrt(make_raster, tmp_path)
    target, options = tmp_path / "map.tif", {"allow_drivers": ["VRT"]}
    interrupted(city, target, models / "identity", **options)
    os.utime(behind, ns=(0, 1))
    with pytest.raises(StagingError, match="with other source"):
        render(city, target, models / "identity", **options)


def test_a_change_behind_a_vrt_of_vrts_while_it_is_read_is_found(make_raster, models, tmp_path):
    behind, city = nested_vrt(make_raster, tmp_path)

    def changed(_plan, _tiles):
        os.utime(behind, ns=(0, 1))

    options = {"allow_drivers": ["VRT"], "on_plan": changed}
    with pytest.raises(RasterError, match=r"city\.vrt: changed while it was read"):
        render(city, tmp_path / "map.tif", models / "identity", **options)
    assert not (tmp_path / "map.tif").exists()


def test_a_mask_beside_the_source_is_part_of_it(make_raster, models, tmp_path, interrupted):
    city, target = make_raster(1024, 1024), tmp_path / "map.tif"

    def write_mask(rows):
        keep = np.ones((1024, 1024), bool)
        keep[rows] = False
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(city, "r+") as dst:
            dst.write_mask(keep)

    write_mask(slice(100, 300))
    assert (tmp_path / "city.tif.msk").exists()
    times = city.stat()
    interrupted(city, target, models / "identity")
    write_mask(slice(600, 900))
    os.utime(city, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(StagingError, match="with other source"):
        render(city, target, models / "identity")


def test_what_a_gis_adds_beside_the_source_changes_nothing(
    make_raster, models, tmp_path, interrupted
):
    city, target = make_raster(1024, 1024), tmp_path / "map.tif"
    interrupted(city, target, models / "identity")
    write_raster(tmp_path / "city.tif.ovr", noise(512, 512))
    (tmp_path / "city.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    with rasterio.open(city) as src:
        assert len(src.files) == 3
    assert render(city, target, models / "identity").blocks_resumed == 2


def test_a_change_behind_a_vrt_while_it_is_read_is_found(
    make_raster, models, tmp_path, monkeypatch
):
    behind = make_raster(600, 600, "behind.tif")
    city, target = vrt_of(behind, tmp_path / "city.vrt"), tmp_path / "map.tif"

    def changed(_plan, _tiles):
        os.utime(behind, ns=(0, 1))

    with pytest.raises(RasterError, match=r"city\.vrt: changed while it was read"):
        render(city, target, models / "identity", allow_drivers=["VRT"], on_plan=changed)
    assert not target.exists()


def test_a_source_that_cannot_be_opened_for_a_moment_costs_no_block(
    make_raster, models, tmp_path, monkeypatch
):
    city = vrt_of(make_raster(600, 600, "behind.tif"), tmp_path / "city.vrt")
    target, call = tmp_path / "map.tif", {"allow_drivers": ["VRT"], "block": 512}

    def away(path, **_options):
        raise RasterError(f"{path}: cannot be opened")

    with monkeypatch.context() as meanwhile, pytest.raises(RasterError, match="cannot be opened"):
        meanwhile.setattr(identity, "open_raster", away)
        render(city, target, models / "identity", **call)
    assert render(city, target, models / "identity", **call).blocks_resumed == 4


def test_a_remote_raster_is_known_by_where_its_pixels_lie(tmp_path, monkeypatch):
    """Its header alone is the same for every scene of an archive."""
    monkeypatch.setattr(identity, "is_remote", lambda _path: True)
    found = []
    for seed in (0, 0, 1):
        path = tmp_path / f"{len(found)}.tif"
        tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        write_raster(path, noise(600, 600, seed) // 16, **tiled)
        with open_raster(str(path)) as src:
            found.append(identity.identity_of("https://h/a.tif", src))
    assert found[0] == found[1] != found[2]


def test_a_remote_raster_is_known_by_its_address_without_its_signature(
    make_raster, models, tmp_path
):
    plan = plan_render(make_raster(64, 64), tmp_path / "map.tif", open_model(models / "identity"))

    def fingerprint(url):
        return replace(plan, source=replace(plan.source, path=url)).fingerprint

    here = fingerprint("https://h/a.tif?signature=1")
    assert here == fingerprint("https://h/a.tif?signature=2")
    assert here != fingerprint("https://h/b.tif?signature=1")
    assert fingerprint("a.tif") == fingerprint("b.tif")  # known by its bytes, wherever it lies


def test_a_file_system_without_locks_is_rendered_to_with_a_warning(
    make_raster, models, tmp_path, monkeypatch, caplog
):
    def no_locks(_file, _how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    city, target = make_raster(100, 100), tmp_path / "map.tif"
    render(city, target, models / "identity")
    assert np.array_equal(read_raster(target), read_raster(city))
    assert [r.getMessage() for r in caplog.records if "no locks" in r.getMessage()]


def test_a_lock_that_fails_otherwise_is_an_error(make_raster, models, tmp_path, monkeypatch):
    def broken(_file, _how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(TargetError, match="lock"):
        render(make_raster(100, 100), tmp_path / "map.tif", models / "identity")


def test_a_folder_that_another_run_has_locked_meanwhile_stays(tmp_path):
    """The first run removed its folder; the second made it anew before the first had left."""
    target = tmp_path / "map.tif"
    with locked(target) as folder:
        shutil.rmtree(folder)
        second = locked(target)
        second.__enter__()
    assert folder.exists()
    second.__exit__(None, None, None)
    assert not folder.exists()


def test_a_stale_mask_beside_a_layer_goes_with_the_layer_it_belonged_to(
    make_raster, models, tmp_path
):
    city, doubt = make_raster(300, 300), tmp_path / "doubt.tif"
    write_raster(doubt, np.zeros((1, 300, 300), np.uint8))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(doubt, "r+") as dst:
        dst.write_mask(np.zeros((300, 300), bool))
    assert (tmp_path / "doubt.tif.msk").exists()
    render(city, tmp_path / "map.tif", models / "identity", uncertainty=doubt, overwrite=True)
    with rasterio.open(doubt) as src:
        assert src.dataset_mask().all()


def test_a_crs_that_no_geotiff_holds_is_refused_before_the_first_tile(models, tmp_path):
    wkt = rasterio.crs.CRS.from_string(
        "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180"
    )
    city = tmp_path / "city.png"  # which keeps it in a file beside
    write_raster(city, noise(100, 100), driver="PNG", crs=wkt)
    with pytest.raises(RasterError, match=r"a GeoTIFF cannot hold its CRS .*gdalwarp -t_srs"):
        render(city, tmp_path / "map.tif", models / "identity", gsd="native")
    assert not (tmp_path / "map.tif.part").exists()


@pytest.mark.parametrize("block", [512, 1536])
def test_overviews_that_no_worker_can_make_are_not_kept_in_memory(
    make_raster, models, tmp_path, monkeypatch, block
):
    """With an odd number of file blocks a side, all levels but the first are made at the end."""
    seen = []
    real = finish_module.join

    def noted(*arguments):
        joined = real(*arguments)
        made = [p for level in joined.places for p in level.values() if p.block is None]
        seen.append((len(made), sum(p.pixels + p.mask for p in made), joined.made.tell()))
        return joined

    monkeypatch.setattr(finish_module, "join", noted)
    city, target = make_raster(1600, 1600), tmp_path / "map.tif"
    render(city, target, models / "identity", block=block)
    render(city, tmp_path / "one.tif", models / "identity", block=2048)
    count, size, written = seen[0]
    assert count == 5  # 2 x 2 of 800 px, 1 of 400 px
    assert size == written
    assert target.read_bytes() == (tmp_path / "one.tif").read_bytes()


def test_a_masked_map_is_no_bomb(tmp_path, monkeypatch):
    """Of a map that is masked nearly everywhere only the directories are stored."""
    path, flat = tmp_path / "map.tif", np.full((3, 512, 20_000), 9, np.uint8)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "height": 20_000, "width": 20_000,
        "tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True,
        "compress": "zstd", "nodata": 0, "crs": "EPSG:32618",
        "transform": rasterio.Affine(0.9, 0, 583000, 0, -0.9, 4507000),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(
            np.full((3, 512, 512), 9, np.uint8), window=rasterio.windows.Window(0, 0, 512, 512)
        )
    monkeypatch.setattr(limits, "RATIO_COUNTS_FROM_BYTES", 2**30)
    ratio = 3 * 20_000**2 / path.stat().st_size
    monkeypatch.setattr(limits, "MAX_RATIO", ratio / 2)
    with open_raster(str(path)) as src:
        assert src.width == 20_000
    with StoredBlocks(path) as stored:
        assert stored.place(0, 0, 0) != (0, 0)
    with rasterio.open(path, "r+") as dst:
        for row in range(0, 20_000, 512):
            height = min(512, 20_000 - row)
            dst.write(flat[:, :height], window=Window(0, row, 20_000, height))
    monkeypatch.setattr(limits, "MAX_RATIO", 3 * 20_000**2 / path.stat().st_size / 2)
    with pytest.raises(RasterError, match="looks like a bomb"):
        open_raster(str(path))
