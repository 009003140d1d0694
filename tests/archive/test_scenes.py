from __future__ import annotations

import http.server
import json
import threading
from datetime import date
from urllib.parse import quote, unquote

import pytest

from tests.archive.world import poison, write_archive, write_job, write_scene
from tests.faults.server import serving
from tilemapper.archive import index_pages, remote, stac_source
from tilemapper.archive.job import Source
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.naming import name_outputs
from tilemapper.archive.remote import Entry, entry
from tilemapper.archive.run import run_archive
from tilemapper.archive.scenes import discover
from tilemapper.errors import JobError, TryAgainError
from tilemapper.raster.secrets import public, redacted, scene_id


def names(*scenes: str, **filters) -> list[str]:
    return [scene.name for scene in discover(Source(scenes=scenes, **filters))]


def test_a_folder_gives_its_rasters_at_any_depth_and_no_hidden_file(tmp_path):
    made = write_archive(tmp_path / "in", 4)
    write_scene(tmp_path / "in" / ".hidden" / "a.tif", 9)
    write_scene(tmp_path / "in" / ".b.tif", 9)
    (tmp_path / "in" / "notes.txt").write_text("no raster")
    found = discover(Source(scenes=(str(tmp_path / "in"),)))
    assert [scene.name for scene in found] == sorted(map(str, made))
    assert found[0].relpath == "2026-03-01/scene_00000"


def test_what_is_named_twice_is_listed_once(tmp_path):
    made = write_archive(tmp_path, 3)
    assert len(names(str(tmp_path), str(made[0]), str(tmp_path / "**" / "*.tif"))) == 3


def test_a_glob_finds_what_matches(tmp_path):
    write_archive(tmp_path, 6)
    assert len(names(str(tmp_path / "*" / "*_00000.tif"))) == 1
    assert len(names(str(tmp_path / "2026-03-01" / "*.tif"))) == 2


@pytest.mark.parametrize("pattern", ["**/*.tif", "**", "**/s/**/*.tif"])
def test_a_glob_follows_links_but_not_round_and_round(tmp_path, pattern):
    """With two links to the folder they lie in `glob` would not come to an end."""
    made = write_scene(tmp_path / "in" / "s" / "a.tif", 1)
    write_scene(tmp_path / "in" / ".hidden" / "s" / "b.tif", 1)
    (tmp_path / "in" / "[1]").mkdir()
    for name in ("one", "two", "s/three"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "in")
    (tmp_path / "in" / "[1]" / "linked").symlink_to(tmp_path / "in" / "s")
    linked = tmp_path / "in" / "[1]" / "linked" / "a.tif"
    expected = [made] if "/s/" in pattern else [linked, made]
    assert names(str(tmp_path / "in" / pattern)) == list(map(str, expected))


def test_a_link_that_leads_to_itself_hides_no_folder_beside_it(tmp_path):
    write_scene(tmp_path / "below" / "a.tif", 1)
    (tmp_path / "loop").symlink_to("loop")
    assert names(str(tmp_path / "**" / "*.tif")) == [str(tmp_path / "below" / "a.tif")]


def test_a_glob_leaves_out_what_only_lies_beside_rasters(tmp_path):
    made = write_scene(tmp_path / "a.tif", 1)
    other = write_scene(tmp_path / "b.tif", 2).rename(tmp_path / "b.img")
    for beside in (
        "a.tif.aux.xml",
        "a.tif.msk",
        "a.tif.ovr",
        "a.TFW",
        "readme.txt",
        "a.json",
        "report.html",
    ):
        (tmp_path / beside).write_bytes(b"")
    assert names(str(tmp_path / "*")) == [str(made), str(other)]
    assert names(str(tmp_path / "*.ovr")) == [str(tmp_path / "a.tif.ovr")]


def test_a_list_counts_paths_from_its_own_folder_and_leaves_comments_out(tmp_path):
    made = write_archive(tmp_path, 3, days=1)
    (tmp_path / "list.txt").write_text(f"# these\n\n2026-03-01/scene_00000.tif\n{made[1]}\r\n")
    assert names(str(tmp_path / "list.txt")) == [str(made[0]), str(made[1])]


@pytest.mark.parametrize(
    ("lines", "relpaths"),
    [
        (["p/TCI.tif", "q/TCI.tif"], ["p/TCI", "q/TCI"]),
        (["in/p/TCI.tif", "in/q/x/TCI.tif", "in/TCI.tif"], ["TCI", "p/TCI", "q/x/TCI"]),
        (["in/a.tif", "in/b.c.tif"], ["a", "b.c"]),  # one folder, as in earlier versions
        (["../{here}/p/a.tif", "q/a.tif"], ["p/a", "q/a"]),
        (["in/a.tif", "in_other/a.tif"], ["in/a", "in_other/a"]),
    ],
)
def test_scenes_of_a_list_are_told_apart_by_their_folders(tmp_path, lines, relpaths):
    (tmp_path / "l.txt").write_text("\n".join(lines).format(here=tmp_path.name))
    found = discover(Source(scenes=(str(tmp_path / "l.txt"),)))
    assert sorted(scene.relpath for scene in found) == relpaths


def test_addresses_of_a_list_are_told_apart_by_their_folders(monkeypatch):
    monkeypatch.setattr(remote, "entry", lambda url: Entry(url, 1, "tag"))
    one, other = "https://u:pw@host.example/in/../p/TCI.tif?sig=1", "s3://bucket/q/TCI.tif"
    assert [scene.relpath for scene in discover(Source(scenes=("-",)), stdin=[one])] == ["TCI"]
    found = discover(Source(scenes=("-",)), stdin=[one, other])
    assert [scene.relpath for scene in found] == ["host.example/p/TCI", "bucket/q/TCI"]


@pytest.mark.parametrize(
    ("name", "relpath"),
    [("p", "p/TCI"), ("a/../b", "a-..-b/TCI"), ("..", "TCI"), ("TCI", "TCI"), (7, "7/TCI")],
)
def test_scenes_of_a_catalogue_are_told_apart_by_their_items(tmp_path, name, relpath):
    features = [item(name, "p/TCI.tif"), item("q", "q/TCI.tif")]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    found = discover(Source(scenes=(str(tmp_path / "items.json"),)))
    assert [scene.relpath for scene in found] == [relpath, "q/TCI"]
    assert {scene.stem for scene in found} == {"TCI"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_list_end_where_text_files_end_them_and_nowhere_else(tmp_path, monkeypatch, end):
    paths = [f"{n}{odd}.tif" for n, odd in enumerate("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e")]
    (tmp_path / "list.txt").write_bytes((end.join(paths) + end).encode())
    for path in paths:
        write_scene(tmp_path / "s.tif", 1).rename(tmp_path / path)
    found = discover(Source(scenes=(str(tmp_path / "list.txt"),)))
    assert [scene.path for scene in found[:2]] == [str(tmp_path / path) for path in paths[:2]]
    assert len(found) == 8
    assert all("control characters" in (scene.fault or "") for scene in found[2:])
    addresses = [f"https://host.example/{path}" for path in paths]
    monkeypatch.setattr(remote, "fetch", lambda _url: end.join(addresses).encode())
    monkeypatch.setattr(remote, "entry", lambda url: Entry(url, 1, "tag"))
    found = discover(Source(scenes=("https://host.example/list.txt",)))
    assert [unquote(scene.path) for scene in found] == addresses


def test_a_list_may_begin_with_the_mark_of_its_encoding(tmp_path, monkeypatch):
    made = write_scene(tmp_path / "a.tif", 1)
    text = "a.tif\n".encode("utf-8-sig")
    (tmp_path / "list.txt").write_bytes(text)
    assert names(str(tmp_path / "list.txt")) == [str(made)]
    address = "https://host.example/a.tif"
    monkeypatch.setattr(remote, "fetch", lambda _url: address.encode("utf-8-sig"))
    monkeypatch.setattr(remote, "entry", lambda url: Entry(url, 1, "tag"))
    assert names("https://host.example/list.txt") == [address]


def test_stdin_is_a_list(tmp_path):
    made = write_archive(tmp_path, 2)
    found = discover(Source(scenes=("-",)), stdin=[f"{made[0]}\n"])
    assert [scene.name for scene in found] == [str(made[0])]


@pytest.mark.parametrize("named", ["nothing.tif", "nothing/", "nothing.txt", "nothing.json"])
def test_what_is_named_and_not_there_ends_the_run_before_it_begins(tmp_path, named):
    with pytest.raises(JobError, match="nothing"):
        names(str(tmp_path / named))


def test_names_and_dates_filter(tmp_path):
    write_archive(tmp_path, 3)
    write_scene(tmp_path / "x_20260302.tif", 7)
    assert len(names(str(tmp_path), pattern=("scene_*",), exclude=("*_00001*",))) == 2
    kept = names(str(tmp_path), after=date(2026, 3, 2), before=date(2026, 3, 3))
    assert [name.rpartition("/")[2] for name in kept] == ["x_20260302.tif"]


def test_a_date_that_no_calendar_has_is_none(tmp_path):
    write_scene(tmp_path / "tile_20000431.tif", 1)
    write_scene(tmp_path / "tile_20000431_20260302.tif", 2)
    found = {scene.stem: scene.date for scene in discover(Source(scenes=(str(tmp_path),)))}
    assert found == {"tile_20000431": None, "tile_20000431_20260302": "2026-03-02"}
    assert len(names(str(tmp_path), after=date(2000, 1, 1))) == 1


@pytest.mark.parametrize("when", ["2000-04-31T10:00:00Z", "last spring", 2000, None])
def test_an_item_whose_date_is_none_has_that_of_its_raster(tmp_path, when):
    write_scene(tmp_path / "a_20260302.tif", 1)
    values = item("a", "a_20260302.tif", properties={"datetime": when})
    (tmp_path / "item.json").write_text(json.dumps(values))
    (found,) = discover(Source(scenes=(str(tmp_path / "item.json"),), after=date(2026, 1, 1)))
    assert found.date == "2026-03-02"


def test_poisoned_scenes_are_listed_and_known_faults_are_told_at_once(tmp_path):
    poison(tmp_path)
    found = {scene.stem: scene.fault for scene in discover(Source(scenes=(str(tmp_path),)))}
    assert len(found) == 10
    assert "folder" in found["folder"]
    assert "link" in found["dangling"]
    assert "control characters" in found["new\\nline"]
    assert found["empty"] is None


def item(name: str, href: str, **more) -> dict:
    asset = {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]}
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": name, "geometry": None,
        "bbox": [-75.0, 40.0, -74.0, 41.0], "properties": {"datetime": "2026-03-05T10:00:00Z"},
        "links": [], "assets": {"image": asset}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("where", ["./", "https://host.example/", "s3://bucket/"])
@pytest.mark.parametrize("href", ["a\nb", "\x1b[31mred", "a\0", "\ud800", "a\x9bb"])
def test_a_scene_of_a_hostile_name_is_a_fault_and_stops_no_other(
    tmp_path, monkeypatch, where, href
):
    monkeypatch.setattr(remote, "entry", lambda url: Entry(url, 1, "tag"))
    write_scene(tmp_path / "a.tif", 1)
    features = [item("bad", f"{where}{href}.tif"), item("good", "a.tif")]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    bad, good = sorted(
        discover(Source(scenes=(str(tmp_path / "items.json"),))), key=lambda s: s.fault is None
    )
    assert good.fault is None
    assert "control characters" in bad.fault
    assert (bad.name + bad.relpath + bad.fault).isprintable()


@pytest.mark.parametrize("name", ["\u202babc\u202c", "\u2068x\u2069", "\u202egnp"])
def test_marks_of_direction_in_a_name_are_shown_but_refuse_no_scene(tmp_path, name):
    """Systems put them into names of their own, and an archive may be read-only."""
    write_scene(tmp_path / f"{name}.tif", 1)
    (found,) = discover(Source(scenes=(str(tmp_path),)))
    assert (found.fault, found.relpath) == (None, name)
    assert found.name.isprintable()


def test_two_hostile_names_stay_two_and_hide_no_good_one(tmp_path):
    for name in ("a\nb.tif", "a\rb.tif", "a?b.tif"):
        write_scene(tmp_path / name, 1)
    found = discover(Source(scenes=(str(tmp_path),)))
    assert [scene.fault is None for scene in found] == [True, False, False]


def test_keys_of_a_store_that_lead_elsewhere_are_faults(monkeypatch):
    keys = ["in/a.tif", "in/../b.tif", "in/c\n.tif"]
    found = [Entry(f"s3://bucket/{key}", 1, "tag") for key in keys]
    monkeypatch.setattr(remote, "listed", lambda prefix: iter(found))
    scenes = discover(Source(scenes=("s3://bucket/in/",)))
    assert {scene.name: bool(scene.fault) for scene in scenes} == {
        "s3://bucket/in/a.tif": False, "s3://bucket/in/../b.tif": True,
        "s3://bucket/in/c\\n.tif": True,
    }  # fmt: skip
    assert not any(".." in scene.relpath for scene in scenes)


@pytest.mark.parametrize("name", ["a b", "é", "100%25"])
def test_an_address_is_asked_for_as_servers_take_it(tmp_path, monkeypatch, name):
    """Catalogues write a name as it is; a space in it passed for a server that may answer later."""
    monkeypatch.setattr(remote, "entry", lambda url: Entry(url, 1, "tag"))
    (tmp_path / "i.json").write_text(
        json.dumps(item("i", f"https://host.example/{name}.tif?k=v%2F"))
    )
    (found,) = discover(Source(scenes=(str(tmp_path / "i.json"),)))
    assert found.path == f"https://host.example/{quote(name, safe='%')}.tif?k=v%2F"
    assert (found.relpath, found.fault) == (f"i/{name}", None)


def test_an_address_that_is_none_is_no_trouble_that_passes():
    with pytest.raises(JobError, match="InvalidURL"):
        remote.entry("http://host.example:port/a.tif")


def test_a_file_url_of_an_item_is_read_as_one(tmp_path):
    made = write_scene(tmp_path / "ä b.tif", 1)
    (tmp_path / "item.json").write_text(json.dumps(item("i", made.as_uri())))
    assert names(str(tmp_path / "item.json")) == [str(made)]


def test_a_stac_catalog_is_followed_to_its_items_once_each(tmp_path):
    made = [write_scene(tmp_path / "tifs" / f"{n}.tif", n) for n in range(3)]
    links = [{"rel": "item", "href": f"./items/{n}.json"} for n in range(3)]
    (tmp_path / "items").mkdir()
    for n in range(3):
        text = json.dumps(item(str(n), f"../tifs/{n}.tif"))
        (tmp_path / "items" / f"{n}.json").write_text(text)
    loop = {"rel": "child", "href": "catalog.json"}
    catalog = {"type": "Catalog", "id": "c", "links": [*links, loop]}
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    found = discover(Source(scenes=(str(tmp_path / "catalog.json"),)))
    assert [scene.name for scene in found] == list(map(str, made))
    assert found[0].date == "2026-03-05"
    assert found[0].bbox == (-75.0, 40.0, -74.0, 41.0)


def test_a_single_item_is_a_source_and_an_asset_can_be_named(tmp_path):
    made = [write_scene(tmp_path / f"{name}.tif", 1) for name in ("image", "visual")]
    values = item("one", "image.tif")
    values["assets"]["rgb"] = {"href": "visual.tif", "type": "image/tiff"}
    (tmp_path / "item.json").write_text(json.dumps(values))
    assert names(str(tmp_path / "item.json")) == [str(made[0])]
    assert names(str(tmp_path / "item.json"), asset="rgb") == [str(made[1])]


def test_bounds_leave_out_items_whose_box_lies_elsewhere(tmp_path):
    write_scene(tmp_path / "a.tif", 1)
    features = [item("a", "a.tif"), item("b", "a.tif", bbox=[10, 40, 11, 41])]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    assert len(names(str(tmp_path / "items.json"), bounds=(-80, 30, -70, 50))) == 1
    assert not names(str(tmp_path / "items.json"), bounds=(0, 0, 1, 1))


def test_bounds_and_boxes_of_items_may_pass_the_date_line(tmp_path):
    """As GeoJSON has it, their west lies beyond their east then."""
    write_scene(tmp_path / "a.tif", 1)
    fiji = item("a", "a.tif", bbox=[177, -20, -178, -15])
    (tmp_path / "items.json").write_text(json.dumps(fiji))
    source = str(tmp_path / "items.json")
    assert len(names(source, bounds=(178, -19, 179, -16))) == 1
    assert len(names(source, bounds=(179, -19, -179, -16))) == 1
    assert not names(source, bounds=(0, -19, 10, -16))
    assert not names(source, bounds=(-177, -19, 176, -16))


def test_json_that_is_no_stac_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"type": "Topology"}')
    with pytest.raises(JobError, match="no STAC"):
        names(str(tmp_path / "x.json"))


@pytest.mark.parametrize("key", ["links", "properties"])
def test_a_catalogue_may_say_null_for_what_it_does_not_say(tmp_path, key):
    made = write_scene(tmp_path / "a.tif", 1)
    values = {"type": "FeatureCollection", "features": [item("a", "a.tif", **{key: None})]}
    (tmp_path / "items.json").write_text(json.dumps(values | {key: None}))
    assert names(str(tmp_path / "items.json")) == [str(made)]


@pytest.mark.parametrize(
    ("faulty", "word"),
    [
        ({"bbox": [None, None, None, None]}, "bbox"),
        ({"bbox": [1, 2]}, "bbox"),
        ({"bbox": [0, 0, float("nan"), 1]}, "bbox"),
        ({"bbox": 7}, "bbox"),
        ({"properties": "none"}, "properties"),
        ({"assets": ["image"]}, "assets"),
        ({"assets": {"image": {"type": "image/tiff", "roles": None}}}, "href"),
        ({"assets": {"image": {"type": "image/tiff", "href": None}}}, "href"),
    ],
)
def test_an_item_that_is_no_stac_is_named_in_one_error(tmp_path, faulty, word):
    features = [item("good", "a.tif"), item("foreign", "a.tif", **faulty)]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(JobError, match=rf"items\.json: item 'foreign'.*{word}"):
        names(str(tmp_path / "items.json"))


@pytest.mark.parametrize(
    ("foreign", "asset"),
    [
        ({"assets": None}, None),
        ({"assets": {"image": "a.tif"}}, None),
        ({"assets": {"metadata": {"href": "a.json", "type": "application/json"}}}, None),
        ({"assets": {"rgb": {"href": "a.tif", "type": "image/tiff"}}}, "image"),
    ],
)
def test_an_item_without_a_raster_is_a_fault_and_stops_no_other(tmp_path, foreign, asset):
    write_scene(tmp_path / "a.tif", 1)
    features = [item("good", "a.tif"), item("two\nlines", "a.tif", **foreign)]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    source = Source(scenes=(str(tmp_path / "items.json"),), asset=asset)
    good, bad = discover(source)
    assert (good.name, good.fault) == (str(tmp_path / "a.tif"), None)
    assert bad.name == str(tmp_path / "items.json" / "two-lines" / "item")
    assert "asset" in bad.fault and bad.fault.isprintable()
    assert bad.date == good.date
    assert not discover(source.model_copy(update={"bounds": (0, 0, 1, 1)}))


def test_items_without_a_raster_are_in_the_way_of_no_output(tmp_path):
    """Two of them have the same stem, and could not be told apart in a template of stems."""
    write_scene(tmp_path / "item.tif", 1)
    features = [item("good", "item.tif"), *(item(name, "", assets={}) for name in ("a", "b"))]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    path = write_job(tmp_path, tmp_path)
    path.write_text(path.read_text().replace("{relpath}", "{stem}").replace('"in"', '"items.json"'))
    job = load_job(path)
    scenes = discover(job.source)
    assert len(scenes) == len(name_outputs(job, scenes)) == 3


def test_a_catalogue_of_which_no_item_has_the_asset_is_the_jobs_fault(tmp_path):
    features = [item("a", "a.tif"), item("b", "b.tif")]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(JobError, match=r"item 'a' has no asset 'visaul', there are: \['image'\]"):
        names(str(tmp_path / "items.json"), asset="visaul")


@pytest.mark.parametrize("asset", [None, "image"])
def test_a_catalogue_of_which_no_item_has_a_raster_stops_no_other_source(tmp_path, asset):
    made = write_scene(tmp_path / "a.tif", 1)
    for name, more in (("good", {}), ("without", {"assets": {}})):
        (tmp_path / f"{name}.json").write_text(json.dumps(item(name, "a.tif", **more)))
    for other in (tmp_path / "good.json", made):
        source = Source(scenes=(str(tmp_path / "without.json"), str(other)), asset=asset)
        good, bad = discover(source)
        assert (good.name, good.fault) == (str(made), None)
        assert "item 'without' has no" in bad.fault


@pytest.mark.parametrize("old", ["2025-12-31T10:00:00Z", "2026-03-04T23:59:59Z"])
def test_items_without_a_raster_that_a_filter_leaves_out_are_not_told_about(tmp_path, old):
    without = item("old", "", assets={}, properties={"datetime": old})
    (tmp_path / "old.json").write_text(json.dumps(without))
    source = Source(scenes=(str(tmp_path / "old.json"),), after=date(2026, 3, 5))
    assert discover(source) == []
    assert discover(source.model_copy(update={"after": None, "bounds": (0, 0, 1, 1)})) == []
    with pytest.raises(JobError, match="item 'old' has no raster asset"):
        discover(source.model_copy(update={"after": None}))


def test_a_new_item_without_a_raster_fails_by_itself_where_older_ones_have_one(tmp_path):
    write_scene(tmp_path / "a.tif", 1)
    old = item("old", "a.tif", properties={"datetime": "2025-12-31T10:00:00Z"})
    features = [item("new", "", assets={}), old]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "items.json").write_text(text)
    (bad,) = discover(Source(scenes=(str(tmp_path / "items.json"),), after=date(2026, 1, 1)))
    assert "item 'new' has no raster asset" in bad.fault


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": "all"},
        {"type": "FeatureCollection", "features": [None]},
        {"type": "Catalog", "links": [7]},
    ],
)
def test_a_catalogue_whose_lists_are_none_is_named(tmp_path, document):
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(JobError, match=r"c\.json: .* no list of objects"):
        names(str(tmp_path / "c.json"))


def test_a_catalogue_that_cannot_be_fetched_is_not_called_damaged(monkeypatch):
    line = "https://host.example/c.json: cannot be fetched (404); check the address"

    def fetch(_url: str) -> bytes:
        raise JobError(line)

    monkeypatch.setattr(remote, "fetch", fetch)
    with pytest.raises(JobError) as caught:
        names("https://host.example/c.json")
    assert str(caught.value) == line


def test_a_catalogue_on_a_server_whose_link_is_no_address_is_named(monkeypatch):
    document = {"type": "Catalog", "links": [{"rel": "child", "href": "//[host.example/a.json"}]}
    monkeypatch.setattr(remote, "fetch", lambda _url: json.dumps(document).encode())
    with pytest.raises(JobError, match=r"c\.json: links to .* no address"):
        names("https://host.example/c.json")


SIGNED = "https://user:pw@host.example/a/b.tif?X-Amz-Signature=abc&sig=1&version=7"


def test_what_is_shown_of_an_address_holds_no_secret():
    assert public(SIGNED) == "https://host.example/a/b.tif"
    line = redacted(f"{SIGNED}: cannot be read ('{SIGNED}'), see s3://key:secret@bucket/x?y=z")
    for secret in ("user", "pw", "abc", "key", "secret", "?"):
        assert secret not in line.replace("see", "")


def test_a_scene_keeps_its_name_when_only_its_signature_changes():
    other = SIGNED.replace("abc", "def").replace("user:pw@", "")
    assert scene_id(SIGNED) == scene_id(other)
    assert scene_id(SIGNED) != scene_id(SIGNED.replace("version=7", "version=8"))


@pytest.mark.parametrize("kind", ["list", "catalog", "index"])
def test_servers_are_asked_for_many_scenes_at_once(tmp_path, monkeypatch, kind):
    """One after the other, none of four would get past a barrier for four."""
    barrier = threading.Barrier(4, timeout=60)

    def entry(url: str) -> Entry:
        barrier.wait()
        return Entry(url, 1, "tag")

    monkeypatch.setattr(remote, "entry", entry)
    addresses = [f"https://host.example/in/{n}.tif" for n in range(4)]
    where = str(tmp_path / "scenes.txt")
    if kind == "list":
        (tmp_path / "scenes.txt").write_text("\n".join(addresses))
    elif kind == "catalog":
        where = str(tmp_path / "items.json")
        features = [item(address[-5], address) for address in addresses]
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (tmp_path / "items.json").write_text(text)
    else:
        where = "https://host.example/in/"
        monkeypatch.setattr(index_pages, "linked", lambda prefix: iter(addresses))
    assert names(where) == addresses


@pytest.mark.parametrize("href", ["a\0.json", "\ud800.json"])
def test_a_catalogue_that_links_to_no_path_is_named(tmp_path, href):
    document = {"type": "Catalog", "links": [{"rel": "child", "href": href}]}
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(JobError, match="cannot be read"):
        names(str(tmp_path / "c.json"))


def test_folders_of_an_index_are_followed_however_many_files_there_are(monkeypatch):
    """They were counted with the files: beyond some thousands of these folders went missing."""
    top, below = "https://host.example/in/", "https://host.example/in/b/"
    hrefs = ["http://[open/", *(f"{n}.tif" for n in range(6)), "b/"]
    pages = {
        top: "".join(f'<a href="{href}">x</a>' for href in hrefs),
        below: '<a href="last.tif">x</a><a href="c/">x</a>',
        f"{below}c/": "",
    }
    monkeypatch.setattr(remote, "fetch", lambda url: pages[url].encode())
    monkeypatch.setattr(index_pages, "MAX_FOLDERS", 2)
    assert list(index_pages.linked(top))[-1] == f"{below}last.tif"
    monkeypatch.setattr(index_pages, "MAX_FOLDERS", 1)
    with pytest.raises(JobError, match="more than 1 folders"):
        list(index_pages.linked(top))


def test_a_catalogue_without_end_is_refused_and_not_cut_short(tmp_path, monkeypatch):
    links = [{"rel": "item", "href": f"./{n}.json"} for n in range(4)]
    (tmp_path / "c.json").write_text(json.dumps({"type": "Catalog", "links": links}))
    monkeypatch.setattr(stac_source, "MAX_DOCUMENTS", 3)
    with pytest.raises(JobError, match="more than 3 documents"):
        names(str(tmp_path / "c.json"))


class _SignedForGet(http.server.BaseHTTPRequestHandler):
    """A store whose signatures are of the method too: a HEAD is refused."""

    ranges = True

    def do_HEAD(self):
        self.send_error(403)

    def do_GET(self):
        if "Signature" not in self.path:
            self.send_error(403)
            return
        part = self.ranges and self.headers["Range"] == "bytes=0-0"
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", "bytes 0-0/1234")
        self.send_header("Content-Length", "1" if part else "1234")
        self.send_header("ETag", '"abc"')
        self.end_headers()
        self.wfile.write(b"x" if part else bytes(1234))

    def log_message(self, *_words):
        pass


@pytest.mark.parametrize("ranges", [True, False])
def test_an_address_that_is_signed_for_reading_alone_is_looked_at_by_reading(monkeypatch, ranges):
    """Such are the ones that S3 signs, and GDAL reads them; each passed for a forbidden scene."""
    monkeypatch.setattr(_SignedForGet, "ranges", ranges)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _SignedForGet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.tif"
        found = entry(f"{address}?X-Amz-Signature=1")
        assert (found.size_bytes, found.etag) == (1234, "abc")
        with pytest.raises(JobError, match="403"):
            entry(address)
        server.shutdown()


@pytest.mark.parametrize("mode", ["awakes", "lost1"])
def test_a_server_that_is_in_trouble_for_a_moment_is_asked_again(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(remote, "ASKED_AGAIN_AFTER_S", (0.01,) * 9)
    size = write_scene(tmp_path / "a.tif", 1).stat().st_size
    (tmp_path / "list.txt").write_text("# none")
    with serving(tmp_path) as url:
        (scene,) = discover(Source(scenes=(f"{url}/{mode}/0/a.tif",)))
        assert (scene.size_bytes, scene.fault) == (size, None)
        assert remote.fetch(f"{url}/{mode}/0/list.txt") == b"# none"
        (gone,) = discover(Source(scenes=(f"{url}/{mode}/0/none.tif",)))
    assert gone.fault is not None and "(404)" in gone.fault and not gone.passes


def test_a_silent_server_is_not_asked_for_each_of_thousands_of_scenes(tmp_path, monkeypatch):
    asked = []

    def answer(url):
        asked.append(url)
        if "//silent.org" in url:
            raise TryAgainError(f"{url}: cannot be looked at (TimeoutError); try again later")
        return Entry(url, 1, "tag")

    monkeypatch.setattr(remote, "entry", answer)
    hosts = ("https://silent.org", "https://other.org")
    lines = [f"{host}/{n}.tif" for n in range(2000) for host in hosts]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    scenes = discover(Source(scenes=(str(tmp_path / "list.txt"),)))
    silent = [scene for scene in scenes if "silent.org" in scene.path]
    assert len(silent) == 2000 and all(scene.passes and scene.fault for scene in silent)
    assert not any(scene.fault for scene in scenes if "other.org" in scene.path)
    assert len([url for url in asked if "silent.org" in url]) < 2 * remote.ASKED_AT_ONCE
    assert len([url for url in asked if "other.org" in url]) == 2000


def catalogue(folder, *links: str) -> str:
    """Writes a catalog of links to items, and an item with a raster."""
    write_scene(folder / "a.tif", 1)
    (folder / "good.json").write_text(json.dumps(item("good", "a.tif")))
    listed = [{"rel": "item", "href": href} for href in links]
    (folder / "c.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": listed}))
    return str(folder / "c.json")


@pytest.mark.parametrize("text", [None, "{", '{"type": "Topology"}'])
def test_an_item_whose_document_is_missing_or_none_stops_no_other(tmp_path, text):
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
    good, bad = discover(Source(scenes=(catalogue(tmp_path, "bad.json", "good.json"),)))
    assert (good.name, good.fault) == (str(tmp_path / "a.tif"), None)
    assert bad.fault.startswith(str(tmp_path / "bad.json")) and not bad.passes
    with pytest.raises(JobError, match=r"bad\.json"):
        discover(Source(scenes=(str(tmp_path / "bad.json"),)))


def test_items_that_a_server_does_not_give_for_now_are_left_for_later(
    tmp_path, models, identity, monkeypatch
):
    monkeypatch.setattr(remote, "ASKED_AGAIN_AFTER_S", (0.01,))
    web = tmp_path / "web"
    web.mkdir()
    catalogue(web, "good.json", "/shut/0/other.json")
    write_scene(web / "b.tif", 2)
    (web / "other.json").write_text(json.dumps(item("other", "/good/0/b.tif")))
    with serving(web) as url:
        path = write_job(tmp_path, models / "identity")
        path.write_text(path.read_text().replace('["in"]', f'["{url}/good/0/c.json"]'))
        job = load_job(path)
        assert run_archive(job, identity).done == 2
        (web / "shut").touch()
        summary = run_archive(job, identity)
        assert (summary.already_done, summary.left, summary.exit_code) == (1, 1, 75)
        with Ledger(job.work / "ledger.sqlite") as ledger:
            assert not any(row.gone for row in ledger.rows().values())
        (web / "shut").unlink()
        summary = run_archive(job, identity)
        assert (summary.already_done, summary.left, summary.exit_code) == (2, 0, 0)


def test_a_catalogue_whose_server_falls_silent_is_not_asked_for_all_its_items(monkeypatch):
    links = [{"rel": "item", "href": f"./{n}.json"} for n in range(2000)]
    asked = []

    def fetch(url):
        asked.append(url)
        if url.endswith("c.json"):
            return json.dumps({"type": "Catalog", "id": "c", "links": links}).encode()
        raise TryAgainError(f"{url}: cannot be fetched (TimeoutError); try again later")

    monkeypatch.setattr(remote, "fetch", fetch)
    with pytest.raises(TryAgainError, match="cannot be fetched"):
        names("https://host.example/c.json")
    assert len(asked) < 3 * remote.ASKED_AT_ONCE
