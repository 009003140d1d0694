"""STAC documents, against the specification's schemas and the extensions that they name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pystac
import pytest
from pystac.extensions.file import SCHEMA_URI as FILE
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import SCHEMA_URI as PROJECTION
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from tests.archive.world import LEFT, write_archive, write_job, write_scene
from tests.conftest import noise, write_raster
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import leave
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.run import run_archive
from tilemapper.archive.stac import PROCESSING, item_id

# Of the extensions' versions that items name, written down from their pages: their schemas are on
# the network only.
FIELDS = {
    "proj": {"code": (str, type(None)), "wkt2": str, "shape": list, "transform": list},
    "file": {"checksum": str, "size": int},
    "processing": {"software": dict},
}


def valid(kind: pystac.STACObjectType, values: dict) -> None:
    """Checks a STAC document against the specification's own schema, as pystac carries it."""
    validator = JsonSchemaSTACValidator()
    validator.validate_core(values, kind, pystac.get_stac_version())


def test_every_output_has_a_valid_item_and_the_collection_names_them_all(left):
    job, _ = left
    collection = json.loads((job.root / "collection.json").read_text())
    valid(pystac.STACObjectType.COLLECTION, collection)
    hrefs = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert len(hrefs) == 3
    for href in hrefs:
        item = json.loads((job.root / href).read_text())
        valid(pystac.STACObjectType.ITEM, item)
        asset = item["assets"]["map"]
        output = (job.root / "items" / asset["href"]).resolve()
        assert output.stat().st_size == asset["file:size"]
        assert item["properties"]["proj:code"] == "EPSG:32618"
        assert item["properties"]["proj:shape"] == [40, 40]
        source = next(link["href"] for link in item["links"] if link["rel"] == "derived_from")
        assert source.startswith("file:///")
        assert item["properties"]["tilemapper:seconds"] > 0


def test_the_checksum_of_an_item_is_that_of_its_file(left):
    job, _ = left
    for path in (job.root / "items").iterdir():
        asset = json.loads(path.read_text())["assets"]["map"]
        data = (path.parent / asset["href"]).read_bytes()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()


def items(job) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((job.root / "items").iterdir())]


def test_items_are_read_by_the_extensions_that_they_name(left):
    job, _ = left
    for values in items(job):
        assert values["stac_extensions"] == [FILE, PROJECTION, PROCESSING]
        item = pystac.Item.from_dict(values)
        projection = ProjectionExtension.ext(item)
        assert projection.epsg == 32618
        assert projection.shape == [40, 40]
        assert len(projection.transform) == 6
        asset = FileExtension.ext(item.assets["map"])
        assert asset.checksum.startswith("1220")
        assert asset.size > 0


def test_items_have_no_field_that_an_extension_does_not_know(left):
    job, _ = left
    for values in items(job):
        for place in (values["properties"], *values["assets"].values()):
            for key, value in place.items():
                prefix, colon, name = key.partition(":")
                if colon and prefix != "tilemapper":
                    assert isinstance(value, FIELDS[prefix][name]), key
        properties = values["properties"]
        assert re.fullmatch(r"[^:]+:[^:]+", properties["proj:code"])
        assert all(isinstance(number, int) for number in properties["proj:shape"])
        assert all(isinstance(text, str) for text in properties["processing:software"].values())
        for asset in values["assets"].values():
            assert re.fullmatch(r"1220[0-9a-f]{64}", asset["file:checksum"])


def test_an_item_says_where_from_by_what_and_how_well(left, identity):
    job, _ = left
    for values in items(job):
        properties = values["properties"]
        assert properties["tilemapper:model"] == "identity"
        assert properties["tilemapper:model_sha256"] == identity.card.digest
        assert properties["tilemapper:seconds"] > 0
        links = {link["rel"]: link["href"] for link in values["links"]}
        assert links["collection"] == links["root"] == "../collection.json"
        assert Path(links["derived_from"].removeprefix("file://")).exists()


def test_the_seam_figure_of_a_render_is_in_its_item(tmp_path, models, identity):
    write_scene(tmp_path / "in" / "wide.tif", 1, size=400)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    leave(job, run_archive(job, identity))
    assert items(job)[0]["properties"]["tilemapper:overlap_disagreement"] == 0


def test_an_item_without_a_place_on_earth_is_valid_too(tmp_path, models, identity):
    (tmp_path / "in").mkdir()
    write_raster(tmp_path / "in" / "nowhere.tif", noise(30, 40), crs=None)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    leave(job, run_archive(job, identity))
    (values,) = items(job)
    valid(pystac.STACObjectType.ITEM, values)
    assert values["geometry"] is None
    assert values["properties"]["proj:code"] is None
    valid(pystac.STACObjectType.COLLECTION, json.loads((job.root / "collection.json").read_text()))


def test_a_ledger_with_an_impossible_date_is_catalogued_all_the_same(left):
    """As versions wrote it that took 31 April for a date."""
    job, summary = left
    with Ledger(job.work / "ledger.sqlite") as ledger, ledger.transaction() as db:
        db.execute(
            "UPDATE scenes SET facts=json_set(facts, '$.date', '2000-04-31'), ended_s=ended_s+1 "
            "WHERE state='done'"
        )
    assert leave(job, summary)
    for values in items(job):
        assert values["properties"]["datetime"][:19] == values["properties"]["created"][:19]


def test_a_catalogue_is_a_source_for_the_next_job(left, tmp_path, models, identity):
    """What one job leaves, another takes: the collection is followed to the maps."""
    job, _ = left
    (tmp_path / "next").mkdir()
    path = write_job(tmp_path / "next", models / "identity", render="batch_size = 1")
    text = path.read_text().replace('["in"]', f'["{job.root / "collection.json"}"]')
    path.write_text(text.replace("{relpath}", "{stem}"))
    assert run_archive(load_job(path), identity).done == 3


@pytest.mark.parametrize("other", ["a/b__c.tif", "a__b/c.tif"])
def test_two_outputs_never_share_an_item(tmp_path, models, other):
    write_archive(tmp_path / "in", 1)
    job = load_job(write_job(tmp_path, models / "identity"))
    assert item_id(job, f"{job.root}/{other}") != item_id(job, f"{job.root}/a/b/c.tif")


def test_the_item_of_a_long_path_has_a_name_that_a_disk_takes(tmp_path, models, identity):
    folders = Path("東" * 60, "b" * 180)
    write_scene(tmp_path / "in" / folders / "one.tif", 1)
    write_scene(tmp_path / "in" / folders / "two.tif", 2)
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    summary = run_archive(job, identity)
    assert summary.done == 2, summary.failures
    leave(job, summary)
    items = [json.loads(path.read_text()) for path in (job.root / "items").iterdir()]
    assert len({item["id"] for item in items}) == 2


@pytest.mark.parametrize("kind", ["one", "scene", "cell"])
def test_the_maps_of_a_mosaic_have_items_that_say_what_they_are_made_of(
    tmp_path, models, identity, kind
):
    """A mosaic has no address; told in words for one, it ended the run as a defect."""
    for index in range(2):
        write_scene(tmp_path / "in" / f"{index}.tif", index, at=LEFT + 40 * index)
    path = write_job(tmp_path, models / "identity", render="batch_size = 1")
    text = path.read_text()
    if kind == "cell":
        text = text.replace("{relpath}_map", "{mosaic}_{row}_{col}")
    path.write_text(f'{text}\n[mosaic]\noutput = "{kind}"\n')
    job = load_job(path)
    assert leave(job, run_archive(job, identity))
    items = [json.loads(file.read_text()) for file in (job.root / "items").iterdir()]
    assert len(items) == (2 if kind == "scene" else 1)
    for item in items:
        valid(pystac.STACObjectType.ITEM, item)
        sources = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
        words = item["properties"].get("tilemapper:source", "")
        if kind == "scene":
            assert (words, Path(sources[0].removeprefix("file://")).exists()) == ("", True)
        else:
            assert (words.startswith("mosaic of 2 scenes from "), sources) == (True, [])
