from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import rasterio

from tests.archive.world import write_archive, write_job, write_scene
from tilemapper.archive import publishing, worker
from tilemapper.archive.estimate import estimate
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import leave
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.planning import shard_of
from tilemapper.archive.run import run_archive
from tilemapper.archive.scenes import discover
from tilemapper.archive.status import status
from tilemapper.archive.task import SceneTask
from tilemapper.errors import DeviceLostError, DiskFullError, Interrupted, JobError, TargetError
from tilemapper.networks.model import open_model

STATES = {"pending": 0, "running": 0, "done": 0, "failed": 0, "skipped": 0}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*_map.tif"))
    }


def rendered(job, model, **options) -> list[str]:
    """Runs a job; returns the stems of the scenes that were rendered in it."""
    done: list[str] = []

    def tell(event):
        if event.get("state") == "done":
            done.append(Path(event["scene"]).stem)

    run_archive(job, model, tell=tell, **options)
    return done


def no_raster_is_opened(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    monkeypatch.setattr(rasterio, "open", refuse)
    monkeypatch.setattr(worker, "render", refuse)
    monkeypatch.setattr(worker, "open_raster", refuse)


def test_a_poisoned_archive_ends_with_all_good_scenes_done_and_each_failure_named(
    poisoned, identity, monkeypatch
):
    job, words = poisoned
    summary = run_archive(job, identity)
    assert (summary.done, summary.failed, summary.left) == (50, 10, 0)
    assert summary.exit_code == 3
    reasons = {Path(f["scene"]).stem.partition("\\")[0]: f["error"] for f in summary.failures}
    assert set(reasons) == set(words)
    for stem, word in words.items():
        assert word in reasons[stem]
        assert "\n" not in reasons[stem]
    assert len(digests(job.root)) == 50
    assert not list((job.work / "staging").iterdir())

    # The second run reads nothing; after touching seven scenes exactly seven are rendered again.
    scenes = [path for path in sorted((job.root.parent / "in").rglob("scene_*.tif"))][:7]
    with monkeypatch.context() as patch:
        no_raster_is_opened(patch)
        again = run_archive(job, identity)
        assert (again.done, again.already_done, again.failed, again.exit_code) == (0, 50, 10, 3)
    for path in scenes:
        os.utime(path)
    assert sorted(rendered(job, identity)) == sorted(path.stem for path in scenes)


def test_the_outputs_are_what_render_makes_of_the_scenes(small, identity):
    run_archive(small, identity)
    for path in (small.root.parent / "in").rglob("*.tif"):
        output = small.root / path.parent.name / f"{path.stem}_map.tif"
        with rasterio.open(path) as src, rasterio.open(output) as dst:
            assert (src.read() == dst.read()).all()
            assert src.transform == dst.transform


def test_a_missing_output_and_an_altered_one_are_made_again_and_a_copy_is_not(small, identity):
    run_archive(small, identity)
    before = digests(small.root)
    first, second, third, *_ = sorted(small.root.rglob("*_map.tif"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    shutil.copy(third, third.with_suffix(".copy"))
    third.with_suffix(".copy").replace(third)
    stems = {first.stem.removesuffix("_map"), second.stem.removesuffix("_map")}
    assert set(rendered(small, identity)) == stems
    assert digests(small.root) == before
    assert rendered(small, identity) == []


def test_a_change_of_content_that_keeps_size_and_time_is_seen(small, identity):
    run_archive(small, identity)
    path = next((small.root.parent / "in").rglob("*.tif"))
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert rendered(small, identity) == [path.stem]


def test_other_rights_on_a_source_change_nothing(small, identity):
    run_archive(small, identity)
    for path in (small.root.parent / "in").rglob("*.tif"):
        path.chmod(0o600)
    assert rendered(small, identity) == []


def test_other_options_render_everything_again_over_the_old_outputs(small, identity):
    run_archive(small, identity)
    other = small.model_copy(update={"render": small.render.model_copy(update={"overlap": 32})})
    assert len(rendered(other, identity)) == 6


def test_a_file_that_nobody_knows_is_not_overwritten(small, identity):
    path = small.root / "2026-03-01" / "scene_00000_map.tif"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    summary = run_archive(small, identity)
    assert (summary.done, summary.failed) == (5, 1)
    assert "did not make it of this scene" in summary.failures[0]["error"]
    assert path.read_text() == "mine"


def test_the_map_of_a_scene_that_moved_is_kept_and_not_called_somebody_elses(
    tmp_path, models, identity
):
    (made,) = write_archive(tmp_path / "in", 1)
    path = write_job(tmp_path, models / "identity", render="batch_size = 1")
    path.write_text(path.read_text().replace("{relpath}", "{stem}"))
    job = load_job(path)
    assert run_archive(job, identity).done == 1
    before = digests(job.root)
    made.rename(tmp_path / "in" / made.name)
    (failure,) = run_archive(job, identity).failures
    assert "did not make it of this scene" in failure["error"]
    assert digests(job.root) == before


def test_two_scenes_on_one_output_are_refused_before_the_start(small, identity, tmp_path):
    write_scene(tmp_path / "in" / "2026-03-01" / "scene_00000.tiff", 3)
    with pytest.raises(JobError, match="both would be written to"):
        run_archive(small, identity)
    assert not small.root.exists() or not digests(small.root)


def test_outputs_among_the_sources_are_not_taken_for_scenes(tmp_path, models, identity):
    write_archive(tmp_path / "in", 2)
    path = write_job(tmp_path, models / "identity", render="batch_size = 1")
    path.write_text(path.read_text().replace("out/{relpath}_map", "in/{relpath}_map"))
    job = load_job(path)
    assert len(rendered(job, identity)) == 2
    assert rendered(job, identity) == []


@pytest.mark.parametrize("link", [False, True])
def test_outputs_above_the_job_are_not_taken_for_scenes(tmp_path, models, identity, link):
    write_archive(tmp_path / "in", 2)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    path = write_job(tmp_path / "jobs", models / "identity", render="batch_size = 1")
    text = path.read_text().replace("out/{relpath}_map", "../in/{relpath}_map")
    path.write_text(text.replace('"in"', '"../link"' if link else '"../in"'))
    assert len(rendered(load_job(path), identity)) == 2
    assert rendered(load_job(path), identity) == []


def test_outputs_of_an_earlier_template_or_a_lost_scene_are_not_taken_for_scenes(tmp_path, models):
    made = write_archive(tmp_path / "in", 2)
    layers = 'batch_size = 1\nclasses = "in/{relpath}_classes.tif"'
    path = write_job(tmp_path, models / "classes", render=layers)
    path.write_text(path.read_text().replace("out/{relpath}_map", "in/{relpath}_map"))
    model = open_model(models / "classes")
    assert len(rendered(load_job(path), model)) == 2
    made[0].unlink()
    assert rendered(load_job(path), model) == []
    text = path.read_text().replace("_map.tif", "_new.tif")
    path.write_text(text.replace("_classes", "_layer"))
    assert rendered(load_job(path), model) == ["scene_00001"]
    # That run made the ledger forget the old names.
    assert rendered(load_job(path), model) == []
    assert status(load_job(path)).counts == STATES | {"done": 1}


def test_a_failed_scene_is_tried_again_as_often_as_the_job_says(small, identity, monkeypatch):
    tried: list[str] = []

    def poisoned_render(source, *args, **options):
        tried.append(Path(source).stem)
        raise ValueError("boom")

    monkeypatch.setattr(worker, "render", poisoned_render)
    job = small.model_copy(update={"run": small.run.model_copy(update={"retries": 2})})
    summary = run_archive(job, identity)
    assert summary.failed == 6
    assert len(tried) == 18
    # All scenes once before any is tried again: one bad scene keeps no good one waiting.
    assert len(set(tried[:6])) == 6
    assert summary.failures[0]["error"].startswith("ValueError: boom")


def test_failures_are_left_alone_until_they_are_asked_for_or_the_scene_changes(
    tmp_path, models, identity
):
    good = write_scene(tmp_path / "good.tif", 1).read_bytes()
    bad = write_scene(tmp_path / "in" / "a.tif", 1)
    bad.write_bytes(b"")
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    assert run_archive(job, identity).exit_code == 3
    tells: list[dict] = []
    assert run_archive(job, identity, tell=tells.append).failed == 1
    assert tells[0]["todo"] == 0
    assert run_archive(job, identity, retry_failed=True, tell=tells.append).failed == 1
    assert tells[1]["reasons"] == {"retry of a failure": 1}
    bad.write_bytes(good)
    assert rendered(job, identity) == ["a"]


def test_shards_together_do_every_scene_once_and_each_only_its_own(small, identity):
    scenes = discover(small.source)
    for index in (1, 2, 3):
        own = [scene.stem for scene in scenes if shard_of(scene.id, 3) == index - 1]
        assert sorted(rendered(small, identity, shard=(index, 3))) == sorted(own)
    assert len(digests(small.root)) == len(scenes) == 6


def test_a_scene_stays_in_its_shard_whatever_else_is_listed():
    assert shard_of("ab" * 16, 4) == int("ab" * 6, 16) % 4
    shares = [sum(shard_of(f"{n:012x}", 8) == i for n in range(800)) for i in range(8)]
    assert shares == [100] * 8


def test_a_full_disk_ends_the_run_for_later_and_blames_no_scene(small, identity, monkeypatch):
    def full(source, *args, **options):
        raise DiskFullError("out: no space left; free some")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "render", full)
        summary = run_archive(small, identity)
    assert (summary.exit_code, summary.failed, summary.left) == (75, 0, 6)
    assert "no space left" in summary.stopped
    assert len(rendered(small, identity)) == 6


@pytest.mark.parametrize("broken", [True, False])
def test_a_gpu_that_fails_for_one_scene_ends_the_run_only_where_it_works_no_more(
    small, identity, monkeypatch, broken
):
    """A scene that always made a library fail ended every run, and came first in the next."""
    real, begun = worker.render, []

    def failing(source, *args, **options):
        begun.append(source)
        if source == begun[0]:
            raise DeviceLostError("cuda:0: failed (CUDA error: invalid configuration argument)")
        return real(source, *args, **options)

    monkeypatch.setattr(worker, "render", failing)
    monkeypatch.setattr(worker, "is_broken", lambda device: broken)
    summary = run_archive(small, identity)
    outcome = (summary.exit_code, summary.done, summary.failed, summary.left)
    assert outcome == ((75, 0, 0, 6) if broken else (3, 5, 1, 0))


def test_too_little_free_disk_or_time_starts_nothing(small, identity):
    for limit in ({"min_free_gb": 1e9}, {"time_budget_minutes": 1e-9}):
        job = small.model_copy(update={"run": small.run.model_copy(update=limit)})
        summary = run_archive(job, identity)
        assert (summary.exit_code, summary.done, summary.left) == (75, 0, 6)
        assert summary.stopped


def test_a_signal_hands_the_scene_back_and_the_next_run_goes_on(small, identity, monkeypatch):
    calls: list[str] = []
    real = worker.render_scene

    def interrupted(task, **options):
        calls.append(task.id)
        if len(calls) == 3:
            raise Interrupted(15)
        return real(task, **options)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "render_scene", interrupted)
        with pytest.raises(Interrupted):
            run_archive(small, identity)
    with Ledger(small.work / "ledger.sqlite") as ledger:
        assert ledger.counts()["running"] == 0
        assert not ledger.living_runs()
    assert len(rendered(small, identity)) == 4


def test_a_kill_between_publication_and_ledger_loses_no_work(small, identity, monkeypatch):
    real = publishing.put

    def killed(staged, output, sha256):
        real(staged, output, sha256)
        raise Interrupted(9)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "put", killed)
        with pytest.raises(Interrupted):
            run_archive(small, identity)
    assert len(digests(small.root)) == 1
    done: list[dict] = []
    summary = run_archive(small, identity, tell=done.append)
    assert len([event for event in done if event.get("state") == "done"]) == 5
    # It is in the reports as all others are.
    leave(small, summary)
    assert len(list((small.root / "items").iterdir())) == 6


def test_scenes_held_by_a_living_run_are_left_to_it(small, identity):
    run_archive(small, identity)
    with Ledger(small.work / "ledger.sqlite") as ledger:
        ledger.begin_run("other", lease_s=60)
        held = next(iter(ledger.rows()))
        with ledger.transaction() as db:
            db.execute("UPDATE scenes SET state='running', run='other' WHERE id=?", (held,))
    summary = run_archive(small, identity)
    assert (summary.done, summary.left, summary.exit_code) == (0, 1, 75)


def test_the_lease_of_a_run_elsewhere_whose_heart_stopped_is_taken_over(small, identity):
    run_archive(small, identity)

    def hold(beat_s: float) -> None:
        with Ledger(small.work / "ledger.sqlite") as ledger, ledger.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO runs (id, host, pid, birth, started_s, beat_s, lease_s) "
                "VALUES ('other', 'elsewhere', 1, 'boot/space/1', 0, ?, 60)", (beat_s,),
            )  # fmt: skip
            db.execute("UPDATE scenes SET state='running', run='other', output_sha256=NULL")

    hold(time.time() - 30)
    summary = run_archive(small, identity)
    assert (summary.done, summary.left, summary.exit_code) == (0, 6, 75)
    hold(time.time() - 61)
    summary = run_archive(small, identity)
    assert (summary.done, summary.left, summary.exit_code) == (6, 0, 0)


def test_what_another_run_is_writing_is_not_swept_away(small, identity):
    run_archive(small, identity)
    with Ledger(small.work / "ledger.sqlite") as ledger:
        ledger.begin_run("other", lease_s=60)
        held, gone = sorted(ledger.rows())[:2]
        with ledger.transaction() as db:
            db.execute("UPDATE scenes SET state='running', run='other' WHERE id=?", (held,))
    names = [f".{scene}-0123456789ab.1.ff.tmp.tif" for scene in (held, gone)]
    for name in names:
        (small.work / "staging" / name).write_bytes(b"half")
    for scene in (small.root.parent / "in").rglob("*.tif"):
        scene.touch()  # all of them: one alone might be the scene that the other run holds
    run_archive(small, identity)
    assert [path.name for path in (small.work / "staging").iterdir()] == names[:1]


def test_options_that_change_after_a_kill_before_the_ledger_knew_are_seen(
    small, identity, monkeypatch
):
    real = publishing.put

    def killed(staged, output, sha256):
        real(staged, output, sha256)
        raise Interrupted(9)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "put", killed)
        with pytest.raises(Interrupted):
            run_archive(small, identity)
    other = small.model_copy(update={"render": small.render.model_copy(update={"overlap": 32})})
    assert len(rendered(other, identity)) == 6


def test_time_that_runs_out_within_a_scene_keeps_its_blocks(tmp_path, models, monkeypatch):
    write_scene(tmp_path / "in" / "large.tif", 1, size=1200)
    path = write_job(tmp_path, models / "slow", render="batch_size = 1\nblock = 512")
    job, model = load_job(path), open_model(models / "slow")
    hour = job.model_copy(update={"run": job.run.model_copy(update={"time_budget_minutes": 60})})

    def an_hour_later_once_a_block_stands() -> float:
        stands = any((job.work / "staging").glob("*.part/blocks/[!.]*"))
        return time.time() + 3601 * stands

    clock = SimpleNamespace(time=an_hour_later_once_a_block_stands, monotonic=time.monotonic)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "time", clock)
        summary = run_archive(hour, model)
    assert (summary.exit_code, summary.failed, summary.left) == (75, 0, 1)
    assert summary.stopped == "the time budget is used up"
    assert run_archive(job, model).done == 1
    with Ledger(job.work / "ledger.sqlite") as ledger:
        (row,) = ledger.select()
    assert json.loads(row["facts"])["blocks_resumed"] > 0


def test_a_scene_that_kills_every_run_is_named_in_the_end(small, identity):
    run_archive(small, identity)
    with Ledger(small.work / "ledger.sqlite") as ledger:
        victim = next(iter(ledger.rows()))
        with ledger.transaction() as db:
            db.execute(
                "UPDATE scenes SET state='running', run='dead', deaths=4, output_sha256=NULL "
                "WHERE id=?", (victim,),
            )  # fmt: skip
    summary = run_archive(small, identity)
    assert (summary.failed, summary.exit_code) == (1, 3)
    assert "killed 5 times" in summary.failures[0]["error"]
    assert len(rendered(small, identity, retry_failed=True)) == 1


def test_filters_that_need_the_header_skip_without_failing(tmp_path, models, identity):
    write_scene(tmp_path / "in" / "large.tif", 1, size=60)
    write_scene(tmp_path / "in" / "small.tif", 2, size=20)
    write_scene(tmp_path / "in" / "far.tif", 3, size=60, at=900_000.0)
    path = write_job(tmp_path, models / "identity", render="batch_size = 1")
    near = "bounds = [-75.1, 40.0, -74.8, 41.0]\nmin_px = 30"
    path.write_text(path.read_text().replace('scenes = ["in"]', f'scenes = ["in"]\n{near}'))
    job = load_job(path)
    assert rendered(job, identity) == ["large"]
    again = run_archive(job, identity)
    assert (again.skipped, again.already_done, again.exit_code) == (2, 1, 0)
    path.write_text(path.read_text().replace("min_px = 30", "min_px = 10"))
    assert rendered(load_job(path), identity) == ["small"]


def test_a_folder_that_cannot_be_listed_for_a_night_loses_no_work(small, identity, monkeypatch):
    run_archive(small, identity)
    folder = small.root.parent / "in" / "2026-03-02"
    inside = {scene.id for scene in discover(small.source) if str(folder) in scene.name}
    with Ledger(small.work / "ledger.sqlite") as ledger, ledger.transaction() as db:
        db.executemany("UPDATE scenes SET state='pending' WHERE id=?", [(i,) for i in inside])
    staged = [small.work / "staging" / f"{scene}-0123456789ab.tif.part" for scene in inside]
    for blocks in staged:
        blocks.mkdir()
    for scene in (small.root.parent / "in" / "2026-03-01").iterdir():
        scene.touch()  # something to do: otherwise nothing is swept
    real = os.scandir

    def scandir(path):
        if str(path) == str(folder):
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr("tilemapper.archive.scenes.os.scandir", scandir)
        summary = run_archive(small, identity)
    assert (summary.failed, summary.exit_code) == (1, 3)
    assert str(folder) in summary.failures[0]["scene"]
    assert status(small).gone == 0
    assert all(blocks.exists() for blocks in staged)


def two_jobs(folder: Path, model: Path) -> list[Path]:
    """Jobs of one name, each with scenes of its own, whose outputs lie in one folder."""
    paths = []
    for name in ("one", "two"):
        write_scene(folder / name / "in" / f"{name}.tif", 1)
        paths.append(write_job(folder / name, model, render="batch_size = 1"))
        paths[-1].write_text(paths[-1].read_text().replace("out/", "../out/"))
    return paths


def test_two_jobs_of_one_name_do_not_share_a_ledger(tmp_path, models, identity):
    one, two = two_jobs(tmp_path, models / "identity")
    assert rendered(load_job(one), identity) == ["one"]
    for use in (run_archive, lambda job, model: estimate(job, model, discover(job.source))):
        with pytest.raises(JobError, match=r"two/nightly.toml: .* is that of .*one/nightly\.toml"):
            use(load_job(two), identity)
    assert status(load_job(one)).gone == 0
    two.write_text(two.read_text().replace('"nightly"', '"other"'))
    assert rendered(load_job(two), identity) == ["two"]


def test_a_job_that_was_moved_or_copied_keeps_its_ledger(tmp_path, models, identity):
    one, two = two_jobs(tmp_path, models / "identity")
    run_archive(load_job(one), identity)
    two.write_text(one.read_text().replace('"in"', f'"{tmp_path}/one/in"'))
    assert rendered(load_job(two), identity) == []  # a copy
    (tmp_path / "three").mkdir()
    three = two.rename(tmp_path / "three" / "moved.toml")
    three.write_text(three.read_text().replace("[output]", 'exclude = ["x"]\n[output]'))
    assert rendered(load_job(three), identity) == []


def test_a_scene_that_comes_back_counts_again_and_is_not_rendered_again(small, identity, tmp_path):
    run_archive(small, identity)
    path = next((tmp_path / "in").rglob("*.tif"))
    path.rename(tmp_path / "away.tif")
    assert run_archive(small, identity).already_done == 5
    assert status(small).gone == 1
    (tmp_path / "away.tif").rename(path)
    assert rendered(small, identity) == []
    assert (status(small).gone, status(small).counts["done"]) == (0, 6)


def test_what_was_staged_of_a_scene_that_is_gone_is_removed(small, identity):
    stale = small.work / "staging" / f"{'0' * 32}-abc.tif.part"
    stale.mkdir(parents=True)
    (stale / "plan.json").write_text("{}")
    run_archive(small, identity)
    assert not stale.exists()


def test_an_interruption_that_a_library_made_a_failure_of_is_no_fault_of_the_scene(monkeypatch):
    def interrupted(*_arguments):
        try:
            raise Interrupted(15)
        except BaseException as error:
            raise ValueError("validator") from error

    monkeypatch.setattr(worker, "_render", interrupted)
    task = SceneTask(
        id="scene", path="scene.tif", staged="map.tif", model="maps", model_sha256="", options={}
    )
    with pytest.raises(Interrupted):
        worker.render_scene(task)


def test_what_is_staged_and_cannot_be_removed_stops_no_run(small, identity, monkeypatch):
    staging = small.work / "staging"
    staging.mkdir(parents=True)
    litter = staging / "00-of-a-scene-that-is-gone.tif"
    litter.touch()
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent == staging and path.suffix == ".tif":
            raise OSError(errno.EIO, "Input/output error")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    summary = run_archive(small, identity)
    assert (summary.done, summary.exit_code) == (6, 0)
    assert litter.exists()


def test_a_staging_folder_that_cannot_be_made_is_named(small, identity):
    staging = small.work / "staging"
    small.work.mkdir(parents=True)
    staging.touch()
    with pytest.raises(TargetError, match="staging: cannot be written"):
        run_archive(small, identity)
    staging.unlink()
    assert run_archive(small, identity).done == 6


def test_an_output_whose_name_no_disk_takes_fails_before_it_is_rendered(tmp_path, models, identity):
    write_scene(tmp_path / "in" / f"{'x' * 249}.tif", 1)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    events: list[dict] = []
    summary = run_archive(job, identity, tell=events.append)
    assert summary.failed == 1 and "too long" in summary.failures[0]["error"]
    assert not any("tiles" in event for event in events)


def test_nothing_is_rendered_where_no_map_could_be_put(tmp_path, models, identity, monkeypatch):
    write_archive(tmp_path / "in", 3)
    (tmp_path / "out").write_text("no folder")
    path = write_job(tmp_path, models / "identity")
    path.write_text(path.read_text().replace('_map.tif"', '_map.tif"\nwork = "work"'))
    with monkeypatch.context() as patch:
        no_raster_is_opened(patch)
        with pytest.raises(TargetError, match="out/2026-03-01: cannot be written"):
            run_archive(load_job(path), identity)
    (tmp_path / "out").unlink()
    assert run_archive(load_job(path), identity).done == 3


def test_a_run_ends_once_no_map_can_be_put_anywhere_and_the_next_has_the_rest(
    tmp_path, models, identity
):
    write_archive(tmp_path / "in", 4)
    path = write_job(tmp_path, models / "identity")
    path.write_text(path.read_text().replace('_map.tif"', '_map.tif"\nwork = "work"'))
    out, aside = tmp_path / "out", tmp_path / "aside"

    def tell(event):
        if event.get("state") == "done":
            out.rename(aside)
            out.write_text("no folder")

    summary = run_archive(load_job(path), identity, tell=tell)
    assert (summary.done, summary.failed, summary.left, summary.exit_code) == (1, 0, 3, 75)
    assert "cannot be written" in summary.stopped
    out.unlink()
    aside.rename(out)
    summary = run_archive(load_job(path), identity)
    assert (summary.done, summary.already_done, summary.exit_code) == (3, 1, 0)


def test_one_folder_that_takes_no_map_keeps_no_others_from_theirs(tmp_path, models, identity):
    write_archive(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2026-03-01").write_text("no folder")
    summary = run_archive(load_job(write_job(tmp_path, models / "identity")), identity)
    assert (summary.done, summary.failed, summary.exit_code) == (2, 1, 3)
