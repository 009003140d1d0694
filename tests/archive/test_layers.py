"""Classes and uncertainty of every scene, beside its map."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.archive.world import write_archive, write_job, write_scene
from tests.conftest import write_raster
from tilemapper.archive import publishing
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import leave
from tilemapper.archive.run import run_archive
from tilemapper.errors import Interrupted, JobError
from tilemapper.networks.model import Model, open_model
from tilemapper.render.render import render

LAYERS = (
    'batch_size = 1\nclasses = "classes/{relpath}.tif"\nuncertainty = "doubt/{stem}_{date}.tif"'
)


@pytest.fixture
def palette(models: Path) -> Model:
    return open_model(models / "classes")


@pytest.fixture
def layered(tmp_path, models):
    write_archive(tmp_path / "in", 3)
    return load_job(write_job(tmp_path, models / "classes", render=LAYERS))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("out", "classes", "doubt") for path in (folder / kind).rglob("*.tif")
        if ".tilemapper" not in path.parts
    }  # fmt: skip


def rendered(job, model) -> list[str]:
    told: list[dict] = []
    summary = run_archive(job, model, tell=told.append)
    assert summary.failed == 0, summary.failures
    return [Path(event["scene"]).stem for event in told if event.get("state") == "done"]


def test_every_scene_leaves_the_layers_that_render_writes(layered, palette, tmp_path):
    assert len(rendered(layered, palette)) == 3
    assert len(digests(tmp_path)) == 9
    source = tmp_path / "in" / "2026-03-01" / "scene_00000.tif"
    options = {"classes": tmp_path / "c.tif", "uncertainty": tmp_path / "u.tif", "batch_size": 1}
    render(source, tmp_path / "m.tif", palette, **options)
    for name, output in {
        "m": "out/2026-03-01/scene_00000_map.tif", "c": "classes/2026-03-01/scene_00000.tif",
        "u": "doubt/scene_00000_undated.tif",
    }.items():  # fmt: skip
        with (
            rasterio.open(tmp_path / f"{name}.tif") as one,
            rasterio.open(tmp_path / output) as two,
        ):
            assert (one.read() == two.read()).all()
    with rasterio.open(tmp_path / "classes/2026-03-01/scene_00000.tif") as src:
        assert src.colorinterp[0].name == "palette"
        assert json.loads(src.tags()["TILEMAPPER_CLASSES"]) == ["land", "water", "road"]
    assert not list((layered.work / "staging").iterdir())
    assert rendered(layered, palette) == []


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_lost_or_altered_layer_is_made_again_with_its_scene(layered, palette, tmp_path, harm):
    rendered(layered, palette)
    before = digests(tmp_path)
    victim = tmp_path / "classes" / "2026-03-02" / "scene_00001.tif"
    victim.unlink() if harm == "missing" else victim.write_bytes(b"?")
    assert rendered(layered, palette) == ["scene_00001"]
    assert digests(tmp_path) == before


def test_a_kill_between_two_files_of_a_scene_ends_with_all_of_them(
    layered, palette, tmp_path, monkeypatch
):
    real, calls = publishing.put, []

    def killed(staged, output, sha256):
        calls.append(output)
        if len(calls) == 2:
            raise Interrupted(9)
        return real(staged, output, sha256)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "put", killed)
        with pytest.raises(Interrupted):
            run_archive(layered, palette)
    # The map is put in place last: what has a map has its layers.
    assert len(digests(tmp_path)) == 1
    assert not list(layered.root.rglob("*_map.tif"))
    assert len(rendered(layered, palette)) == 3
    assert len(digests(tmp_path)) == 9


def test_a_layer_that_is_wanted_later_renders_the_scenes_again(tmp_path, models, palette):
    write_archive(tmp_path / "in", 2)
    job = load_job(write_job(tmp_path, models / "classes", render="batch_size = 1"))
    rendered(job, palette)
    (tmp_path / "classes" / "2026-03-01").mkdir(parents=True)
    foreign = tmp_path / "classes" / "2026-03-01" / "scene_00000.tif"
    foreign.write_text("mine")
    more = load_job(write_job(tmp_path, models / "classes", render=LAYERS))
    summary = run_archive(more, palette)
    assert (summary.done, summary.failed) == (1, 1)
    assert "did not make it of this scene" in summary.failures[0]["error"]
    assert foreign.read_text() == "mine"


def test_classes_of_a_model_that_has_none_are_refused_before_the_start(tmp_path, models, identity):
    write_archive(tmp_path / "in", 1)
    job = load_job(write_job(tmp_path, models / "identity", render=LAYERS))
    with pytest.raises(JobError, match=r"render\.classes: model identity paints RGB"):
        run_archive(job, identity)
    assert not job.work.exists()


def test_two_scenes_on_one_layer_are_refused_before_the_start(tmp_path, models, palette):
    write_scene(tmp_path / "in" / "a" / "x.tif", 1)
    write_scene(tmp_path / "in" / "b" / "x.tif", 2)
    job = load_job(write_job(tmp_path, models / "classes", render=LAYERS))
    with pytest.raises(JobError, match=r"doubt/x_undated\.tif"):
        run_archive(job, palette)


def test_the_item_of_a_scene_has_an_asset_for_each_layer(layered, palette):
    leave(layered, run_archive(layered, palette))
    item = json.loads((layered.root / "items" / "2026-03-01__scene_00000_map.json").read_text())
    assert set(item["assets"]) == {"map", "classes", "uncertainty"}
    for asset in item["assets"].values():
        data = (layered.root / "items" / asset["href"]).resolve().read_bytes()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
        assert asset["file:size"] == len(data)


def test_layers_of_a_mosaic_are_cut_as_its_map_is(tmp_path, models, palette):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (3, 60, 100), dtype=np.uint8)
    grid = Affine(1, 0, 583_000, 0, -1, 4_507_000)
    write_raster(tmp_path / "whole.tif", pixels, transform=grid)
    for name, cols in {"a": slice(0, 60), "b": slice(40, 100)}.items():
        moved = Affine(1, 0, grid.c + cols.start, 0, -1, grid.f)
        write_raster(tmp_path / "in" / f"{name}.tif", pixels[:, :, cols], transform=moved)
    job_path = write_job(tmp_path, models / "classes", render=LAYERS)
    job_path.write_text(job_path.read_text() + '\n[mosaic]\noutput = "scene"\n')
    job = load_job(job_path)
    summary = run_archive(job, palette)
    assert (summary.done, summary.failed) == (3, 0), summary.failures
    options = {"classes": tmp_path / "c.tif", "uncertainty": tmp_path / "u.tif"}
    render(tmp_path / "whole.tif", tmp_path / "m.tif", palette, batch_size=1, **options)
    for whole, part in {"c": "classes/b.tif", "u": "doubt/b_undated.tif"}.items():
        with (
            rasterio.open(tmp_path / f"{whole}.tif") as one,
            rasterio.open(tmp_path / part) as two,
        ):
            assert (one.read()[:, :, 40:] == two.read()).all()
            assert one.colorinterp == two.colorinterp
            assert one.tags().get("TILEMAPPER_CLASSES") == two.tags().get("TILEMAPPER_CLASSES")
            if whole == "c":
                assert one.colormap(1) == two.colormap(1)
    assert run_archive(job, palette).done == 0
