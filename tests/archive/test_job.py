from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from tests.archive.world import write_job, write_scene
from tilemapper.archive.job import Render
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.naming import name_outputs
from tilemapper.archive.scene import Scene
from tilemapper.archive.scenes import discover
from tilemapper.cli.render import render as render_command
from tilemapper.errors import JobError

# Of the command, but senseless for an archive, or in another table of its job.
NOT_IN_JOBS = {
    "source", "target", "overwrite", "restart", "dry_run", "as_json", "quiet", "verbose", "debug",
    "workers", "scheduler", "dashboard", "insecure", "report",
}  # fmt: skip


def job_with(folder: Path, line: str) -> Path:
    path = write_job(folder, folder / "model")
    path.write_text(path.read_text() + "\n" + line + "\n")
    return path


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path):
    with pytest.raises(JobError, match=r"unknown key render\.overlp; did you mean overlap\?"):
        load_job(write_job(tmp_path, tmp_path, render="overlp = 64"))


def test_an_unknown_table_is_refused(tmp_path):
    with pytest.raises(JobError, match=r"unknown key mosaics; did you mean mosaic\?"):
        load_job(job_with(tmp_path, '[mosaics]\noutput = "one"'))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("overlap = 65", "render.overlap is '65'"),
        ("batch_size = 0", "render.batch_size is '0'"),
        ("batch_size = 4097", "render.batch_size is '4097'"),
        ("block = 600", "render.block is '600'"),
        ('gsd = "fine"', "is 'fine': a number is needed, without quotes, or 'auto' or 'native';"),
        ("bidx = [1, 2]", "render.bidx"),
        ('driver = "JPEG"', "render.driver is 'JPEG'"),
        ('tta = "yes"', "render.tta is 'yes': true or false is needed, without quotes"),
        ("compile = 1", "render.compile is '1': true or false is needed;"),
        ('batch_size = "4"', "render.batch_size is '4': a whole number is needed, without quotes"),
        ("block = true", "render.block is 'True': a whole number is needed, or 'auto';"),
        ("overlap = false", "render.overlap is 'False': 0, 32, 64, 96 or 128 is needed"),
        ('nodata = "0"', "render.nodata is '0': a number is needed, without quotes"),
        ("gsd = true", "render.gsd is 'True': a number is needed"),
        ('bidx = ["4", "3", "2"]', "render.bidx is '4': a whole number is needed, without quotes"),
        ("scale = [0]", "render.scale is '[0]': one more value is needed"),
        ('classes = "out/classes.tif"', "all scenes would get this name"),
        ('uncertainty = "out/{stm}.tif"', "did you mean stem?"),
        ('classes = "out/{relpath}_map.tif"', "need paths of their own"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path, line, words):
    with pytest.raises(JobError) as error:
        load_job(write_job(tmp_path, tmp_path, render=line))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("output", 'stac = "no"', "output.stac is 'no': true or false is needed, without quotes"),
        ("run", 'retries = "2"', "run.retries is '2': a whole number is needed, without quotes"),
        ("run", "lease_s = true", "run.lease_s is 'True': a number is needed"),
        ("source", "min_px = true", "source.min_px is 'True': a whole number is needed"),
        ("source", "after = 0", "source.after is '0': a date such as 2026-01-31 is needed"),
    ],
)
def test_a_value_of_another_type_is_not_taken_for_one(tmp_path, table, line, words):
    path = write_job(tmp_path, tmp_path)
    kept = re.sub(rf"^{line.split()[0]} =.*\n", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(kept.replace(f"[{table}]\n", f"[{table}]\n{line}\n"))
    with pytest.raises(JobError) as error:
        load_job(path)
    assert words in str(error.value)


def test_arrays_and_dates_are_as_toml_has_them(tmp_path):
    path = write_job(tmp_path, tmp_path, render="bidx = [4, 3, 2]\nscale = [0, 3000]\nnodata = 0")
    path.write_text(path.read_text().replace("[source]\n", '[source]\nafter = "2026-01-31"\n'))
    job = load_job(path)
    assert (job.render.bidx, job.render.scale, job.render.nodata) == ((4, 3, 2), (0.0, 3000.0), 0.0)
    assert job.source.after == date(2026, 1, 31)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("out/map.tif", "all scenes would get this name"),
        ("out/{stm}.tif", "did you mean stem?"),
        ("out/{stem}.png", "let it end in .tif"),
        ("out/{stem.tif", "write {stem}"),
        ("s3://bucket/{stem}.tif", "output.work is needed"),
        ("out/{stem}_{row}.tif", "{row} and {col} need"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(tmp_path, template, words):
    path = write_job(tmp_path, tmp_path)
    path.write_text(path.read_text().replace("out/{relpath}_map.tif", template))
    with pytest.raises(JobError) as error:
        load_job(path)
    assert words in str(error.value)


def test_relative_paths_count_from_the_folder_of_the_job(tmp_path, monkeypatch):
    path = write_job(tmp_path, "./model", render='mask = "aoi.geojson"')
    monkeypatch.chdir("/")
    job = load_job(path)
    assert job.source.scenes == (str(tmp_path / "in"),)
    assert job.output.template == str(tmp_path / "out" / "{relpath}_map.tif")
    assert job.render.model == str(tmp_path / "model")
    assert job.render.mask == str(tmp_path / "aoi.geojson")
    assert job.root == tmp_path / "out"


def test_outputs_may_lie_beside_the_folder_of_the_job(tmp_path):
    (tmp_path / "jobs").mkdir()
    write_scene(tmp_path / "imagery" / "a.tif", 1)
    path = write_job(tmp_path / "jobs", tmp_path, render='classes = "../classes/{relpath}.tif"')
    path.write_text(path.read_text().replace('"in"', '"../imagery"').replace("out/", "../maps/"))
    job = load_job(path)
    ((_, files),) = name_outputs(job, discover(job.source)).items()
    assert files == (f"{tmp_path}/maps/a_map.tif", f"{tmp_path}/classes/a.tif")
    assert job.root == tmp_path / "maps"


def test_the_folder_above_a_job_is_that_which_the_disk_has(tmp_path):
    (tmp_path / "real" / "jobs").mkdir(parents=True)
    (tmp_path / "jobs").symlink_to(tmp_path / "real" / "jobs")
    path = write_job(tmp_path / "jobs", tmp_path)
    path.write_text(path.read_text().replace("out/", "../maps/"))
    assert load_job(path).root == tmp_path / "real" / "maps"


@pytest.mark.parametrize("folder", ["{tmp}/in", "{tmp}/link", "s3://maps/in"])
@pytest.mark.parametrize("layer", ["", "classes"])
def test_no_raster_is_written_over_by_its_own_map(tmp_path, folder, layer):
    """Even where output.overwrite is set, or in a store, where all is replaced."""
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    folder = folder.format(tmp=tmp_path)
    over, beside = f"{folder}/{{relpath}}.tif", f"{folder}/{{relpath}}_map.tif"
    path = write_job(tmp_path, tmp_path, render=f'{layer} = "{over}"' if layer else "")
    wanted = f'{beside if layer else over}"\noverwrite = true\nwork = "work'
    path.write_text(path.read_text().replace("out/{relpath}_map.tif", wanted))
    scene = Scene(f"{folder}/a.tif".replace("link", "in"), "a")
    with pytest.raises(JobError, match=r"a\.tif: its map would be written over it"):
        name_outputs(load_job(path), [scene])


@pytest.mark.parametrize("template", ["out/{stem}.tif", "out/{relpath}.tif"])
def test_a_folder_that_cannot_be_listed_takes_no_output_from_a_scene(tmp_path, template):
    path = write_job(tmp_path, tmp_path)
    path.write_text(path.read_text().replace("out/{relpath}_map.tif", template))
    folders = [("in/lost", "lost"), ("in/a/lost", "a/lost"), ("in/b", "b")]
    closed = [Scene(str(tmp_path / p), r, fault="closed", closed=True) for p, r in folders]
    scene = Scene(str(tmp_path / "in" / "b.tif"), "b")
    named = name_outputs(load_job(path), [*closed, scene])
    assert len(named) == 4
    assert named[scene.id] == (str(tmp_path / "out" / "b.tif"),)


@pytest.mark.parametrize("folder", ["[2024] x", "{stem} x", "a{b", "what? *"])
@pytest.mark.parametrize("named", ["in", "in/", "in/*.tif", "in/a.tif"])
def test_the_name_of_a_jobs_folder_is_no_glob_and_no_template(tmp_path, folder, named):
    made = write_scene(tmp_path / folder / "in" / "a.tif", 1)
    path = write_job(tmp_path / folder, tmp_path)
    path.write_text(path.read_text().replace('"in"', f'"{named}"'))
    job = load_job(path)
    (scene,) = discover(job.source)
    assert scene.name == str(made)
    assert name_outputs(job, [scene])[scene.id] == (f"{tmp_path}/{folder}/out/a_map.tif",)
    assert job.root == tmp_path / folder / "out"


def test_what_is_missing_in_a_folder_with_brackets_is_no_empty_glob(tmp_path):
    (tmp_path / "[2024]").mkdir()
    job = load_job(write_job(tmp_path / "[2024]", tmp_path))
    with pytest.raises(JobError, match=re.escape(f"{tmp_path}/[2024]/in: no such file or folder")):
        discover(job.source)


@pytest.mark.parametrize(
    ("stem", "name"), [("_n", "n"), (".é-2", "2"), ("é", "job"), ("n" * 99, "n" * 80)]
)
def test_a_job_without_a_name_has_that_of_its_file_as_far_as_it_can_be_one(tmp_path, stem, name):
    path = write_job(tmp_path, tmp_path)
    text = path.read_text().replace('name = "nightly"\n', "")
    (tmp_path / f"{stem}.toml").write_text(text)
    assert load_job(tmp_path / f"{stem}.toml").name == name


def test_a_home_that_nobody_has_is_one_line(tmp_path):
    path = write_job(tmp_path, tmp_path)
    path.write_text(path.read_text().replace('"in"', '"~nobody-of-this-name/in"'))
    with pytest.raises(JobError, match="no folder of this user"):
        load_job(path)


def test_a_training_job_is_sent_to_its_own_command(tmp_path):
    (tmp_path / "t.toml").write_text('kind = "training"')
    with pytest.raises(JobError, match="tilemapper train"):
        load_job(tmp_path / "t.toml")


@pytest.mark.parametrize("content", [b"kind = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused(tmp_path, content):
    (tmp_path / "t.toml").write_bytes(content)
    with pytest.raises(JobError, match="is no TOML file"):
        load_job(tmp_path / "t.toml")


def test_a_file_that_cannot_be_read_is_not_called_wrong_toml(tmp_path):
    missing = tmp_path / "nothere.toml"
    with pytest.raises(JobError) as caught:
        load_job(missing)
    said = f"{missing}: cannot be read (No such file or directory); check the path"
    assert str(caught.value) == said


def test_creation_options_that_no_scene_could_be_written_with_are_refused(tmp_path):
    path = write_job(tmp_path, "maps", render='co = {COMPRES = "ZSTD"}')
    with pytest.raises(JobError, match=r"render: --co COMPRES=ZSTD: .* no option COMPRES"):
        load_job(path)


def test_a_driver_that_gdal_has_not_is_refused_before_the_first_scene(tmp_path):
    path = write_job(tmp_path, "maps", render='allow_driver = ["VRT", "NOPE"]')
    with pytest.raises(JobError, match=r"render\.allow_driver .*--allow-driver NOPE: no driver of"):
        load_job(path)


def test_render_options_have_the_names_of_the_command():
    flags = {parameter.name for parameter in render_command.params} - NOT_IN_JOBS
    other = {"co": "creation_options", "allow_driver": "allow_drivers", "compile": "compiled"}
    assert {other.get(name, name) for name in Render.model_fields} == flags


def test_an_overlap_that_is_not_given_is_left_to_the_models_tile():
    assert Render().options()["overlap"] is None
    assert Render(overlap=64).options()["overlap"] == 64


def test_the_recipe_changes_with_what_decides_pixels_and_with_nothing_else():
    base = Render().recipe("m")
    assert Render(batch_size=3, block=1024).recipe("m") == base
    one, other = Render(classes="a/{stem}.tif"), Render(classes="b/{stem}.tif")
    assert one.recipe("m") == other.recipe("m") != base
    assert Render(overlap=96).recipe("m") != base
    assert Render(overlap=64).recipe("m") == base
    assert Render(gsd="native").recipe("m") != base
    assert Render().recipe("other model") != base


@pytest.mark.parametrize("field", ["{stem:>9999999999}", "{stem!r}", "{stem}\\u0000"])
def test_a_template_lays_nothing_out_and_names_paths_only(tmp_path, field):
    path = write_job(tmp_path, tmp_path)
    text = path.read_text()
    assert "{" in text
    start = text.index("{")
    path.write_text(text[:start] + field + text[text.index("}", start) + 1 :])
    with pytest.raises(JobError, match=r"laid out|control characters"):
        load_job(path)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000])
def test_a_job_nested_deep_or_of_endless_numbers_is_refused(tmp_path, text):
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(JobError, match="no TOML"):
        load_job(tmp_path / "job.toml")
