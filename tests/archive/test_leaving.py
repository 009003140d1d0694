from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pystac
import pytest
from PIL import Image
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from tests.archive.world import write_archive, write_job
from tests.conftest import write_raster
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import check_extras, leave
from tilemapper.archive.metrics import openmetrics
from tilemapper.archive.run import run_archive
from tilemapper.archive.status import status
from tilemapper.archive.summary import RunSummary
from tilemapper.errors import JobError
from tilemapper.report.archive_page import ArchivePage, archive_page
from tilemapper.report.thumbnail import thumbnail_png


@pytest.fixture
def left(tmp_path, models, identity):
    """A run over three good scenes and a failing one, and what it left."""
    write_archive(tmp_path / "in", 3)
    (tmp_path / "in" / "<b>bad & ugly.tif").write_bytes(b"")
    job = load_job(write_job(tmp_path, models / "identity", render="batch_size = 1"))
    summary = run_archive(job, identity)
    leave(job, summary, metrics=tmp_path / "metrics.prom")
    return job, summary


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


def test_footprints_are_coloured_by_state_and_lie_on_the_ground(left):
    job, _ = left
    features = json.loads((job.root / "footprints.geojson").read_text())["features"]
    by_state = {f["properties"]["state"]: f for f in features}
    assert sorted(f["properties"]["state"] for f in features) == ["done"] * 3 + ["failed"]
    assert by_state["failed"]["geometry"] is None
    assert "empty" in by_state["failed"]["properties"]["error"]
    assert by_state["done"]["properties"]["fill"] != by_state["failed"]["properties"]["fill"]
    ring = by_state["done"]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert all(-75.1 < lon < -74.9 and 40 < lat < 41 for lon, lat in ring)
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))
    assert area > 0  # counterclockwise, as GeoJSON asks


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_report_needs_nothing_from_elsewhere_and_escapes_names(left):
    job, _ = left
    text = (job.root / "report.html").read_text()
    reader = _Reader()
    reader.feed(text)
    names = [tag for tag, _ in reader.tags]
    assert "script" not in names
    assert "b" not in names
    assert names.count("img") == 3
    assert names.count("polygon") == 3
    for _, attributes in reader.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes
    assert "&lt;b&gt;bad &amp; ugly.tif" in text
    assert "<td>the file is empty" in text


def test_the_report_of_nothing_is_a_page_too():
    text = archive_page(ArchivePage("x", {}, {}, RunSummary(listed=0, already_done=0).to_json()))
    assert "No failures." in text
    assert "No footprint is known." in text


def test_metrics_are_openmetrics_text(left, tmp_path):
    text = (tmp_path / "metrics.prom").read_text()
    assert text.endswith("# EOF\n")
    sample = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+$')
    for line in text.splitlines():
        assert line.startswith("# ") or sample.match(line), line
    assert 'tilemapper_scenes{job="nightly",state="done"} 3' in text
    assert 'tilemapper_last_run_exit_code{job="nightly"} 3' in text


def test_a_quote_in_a_name_does_not_break_the_metrics():
    text = openmetrics('a"b\\c', {"done": 1}, RunSummary(listed=1, already_done=0).to_json())
    assert 'job="a\\"b\\\\c"' in text


def test_a_run_that_changed_nothing_writes_nothing(left, identity):
    job, _ = left
    before = (job.root / "report.html").stat().st_mtime_ns
    assert not leave(job, run_archive(job, identity))
    assert (job.root / "report.html").stat().st_mtime_ns == before


def test_the_status_is_what_the_ledger_says(left):
    job, summary = left
    found = status(job)
    assert found.counts == {"pending": 0, "running": 0, "done": 3, "failed": 1, "skipped": 0}
    assert found.pixels == summary.pixels == 3 * 40 * 40
    assert len(found.failures) == 1
    assert not found.runs
    assert found.last_run["outcome"] == "ended"


def test_the_status_of_a_job_that_never_ran_is_empty_and_makes_no_ledger(small):
    assert status(small).counts == {}
    assert not small.work.exists()


def test_a_scene_that_left_the_archive_is_counted_as_gone(left, identity):
    job, _ = left
    next((job.root.parent / "in").rglob("scene_*.tif")).unlink()
    leave(job, run_archive(job, identity))
    found = status(job)
    assert (found.counts["done"], found.gone) == (2, 1)
    collection = json.loads((job.root / "collection.json").read_text())
    assert sum(link["rel"] == "item" for link in collection["links"]) == 2


def test_a_thumbnail_is_small_and_white_where_masked(tmp_path):
    pixels = np.full((3, 300, 200), 7, np.uint8)
    keep = np.ones((300, 200), bool)
    keep[:150] = False
    path = write_raster(tmp_path / "map.tif", pixels, mask=keep)
    with Image.open(io.BytesIO(thumbnail_png(str(path)))) as picture:
        assert picture.size == (85, 128)
        assert picture.getpixel((40, 10)) == (255, 255, 255)
        assert picture.getpixel((40, 120)) == (7, 7, 7)
    assert thumbnail_png(str(tmp_path / "none.tif")) is None


def test_a_missing_package_is_named_before_any_work(small, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"pip install 'tilemapper\[archive\]'"):
        check_extras(small)
    plain = small.model_copy(update={"output": small.output.model_copy(update={"stac": False})})
    check_extras(plain)
