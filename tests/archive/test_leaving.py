from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.archive.world import LEFT, write_job, write_scene
from tests.conftest import write_raster
from tilemapper.archive import leaving
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.leaving import check_extras, leave
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.metrics import openmetrics
from tilemapper.archive.run import run_archive
from tilemapper.archive.status import status
from tilemapper.archive.summary import RunSummary
from tilemapper.errors import DiskFullError, JobError
from tilemapper.report.archive_page import MAX_FAILURES, ArchivePage, archive_page
from tilemapper.report.coverage import Footprint
from tilemapper.report.thumbnail import thumbnail_png


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
    text = archive_page(
        ArchivePage("x", "now", {}, {}, RunSummary(listed=0, already_done=0).to_json())
    )
    assert "No failures." in text
    assert "No footprint is known." in text


def page_of(**more) -> str:
    figures = RunSummary(listed=0, already_done=0).to_json()
    return archive_page(ArchivePage("x", "now", {}, leaving.COLOURS, figures, **more))


def test_scenes_that_failed_for_one_reason_are_told_together_and_most_frequent_first():
    failures = [("/in/a.tif", "/in/a.tif: odd")]
    failures += [(f"/in/{n}.tif", f"/in/{n}.tif: empty") for n in range(3)]
    text = page_of(failures=failures)
    assert text.index("<summary>3 scenes</summary>") < text.index("odd")
    assert text.count("<td>empty</td>") == 1
    assert "named below /in/" in text


def test_more_failures_than_anybody_reads_are_counted():
    failures = [(f"/in/{n}.tif", f"reason {n}") for n in range(MAX_FAILURES + 5)]
    assert "And 5 more:" in page_of(failures=failures)


def test_a_footprint_says_its_scene_and_one_too_small_to_see_gets_a_mark():
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
    far = [(x / 1000 + 90, y / 1000) for x, y in square]
    text = page_of(footprints=[Footprint("<a>", "done", square), Footprint("b", "failed", far)])
    assert "<title>&lt;a&gt;: done</title>" in text
    assert text.count("<circle") == 1
    assert "10,019 km from west to east" in text


def test_a_scene_that_failed_is_on_the_map_if_its_header_tells_where_it_lies(
    tmp_path, models, identity
):
    good = write_scene(tmp_path / "in" / "short.tif", 1, size=400)
    good.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    write_scene(tmp_path / "in" / "far.tif", 2, at=LEFT + 5e5)
    path = write_job(tmp_path, models / "identity", render="batch_size = 1")
    near = 'scenes = ["in"]\nbounds = [-75.1, 40.0, -74.8, 41.0]'
    path.write_text(path.read_text().replace('scenes = ["in"]', near))
    job = load_job(path)
    leave(job, run_archive(job, identity))
    features = json.loads((job.root / "footprints.geojson").read_text())["features"]
    states = {f["properties"]["state"]: f["geometry"]["type"] for f in features}
    assert states == {"failed": "Polygon", "skipped": "Polygon"}


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


def test_half_files_of_a_killed_run_are_tidied_and_those_of_a_living_one_are_not(left):
    job, summary = left
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [f".report.{pid}.ab12.tmp.html" for pid in (gone.pid, os.getpid())]
    for folder in (job.root, job.root / "items"):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).touch()
    with Ledger(job.work / "ledger.sqlite") as ledger:
        ledger.note_left("none", ledger.last_end())
    assert leave(job, summary)
    for folder in (job.root, job.root / "items"):
        assert [path.name for path in folder.glob(".*.tmp.*")] == names[1:]


def test_a_full_disk_while_a_run_is_reported_is_one_line(left, monkeypatch):
    job, summary = left
    with Ledger(job.work / "ledger.sqlite") as ledger:
        ledger.note_left("none", ledger.last_end())

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DiskFullError, match="free some space"):
        leave(job, summary)


def test_what_ends_after_the_clock_was_put_back_is_told_of(left, identity, monkeypatch):
    job, _ = left
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 1e6)
    source = job.root.parent / "in" / "2026-03-01" / "scene_00000.tif"
    write_scene(source, 7)
    for _ in range(2):  # the second: a new scene, and the first need not be told of again
        summary = run_archive(job, identity)
        assert summary.done == 1
        assert leave(job, summary)
        for path in (job.root / "items").iterdir():
            asset = json.loads(path.read_text())["assets"]["map"]
            output = job.root / "items" / asset["href"]
            assert asset["file:checksum"][4:] == hashlib.sha256(output.read_bytes()).hexdigest()
        write_scene(source, 8)
    assert len(list((job.root / "items").iterdir())) == 3


def test_what_was_not_wanted_before_or_was_taken_away_is_written_whole(left, identity):
    """A collection named items that were never there: only what was new had been written."""
    job, _ = left
    update = {"stac": False, "report": False}
    plain = job.model_copy(update={"output": job.output.model_copy(update=update)})
    shutil.rmtree(job.root / "items")
    for name in ("collection.json", "footprints.geojson", "report.html"):
        (job.root / name).unlink()
    assert leave(plain, run_archive(plain, identity))
    assert leave(job, run_archive(job, identity))
    assert (job.root / "report.html").exists()
    assert len(list((job.root / "items").iterdir())) == 3
    assert not leave(job, run_archive(job, identity))
    shutil.rmtree(job.root / "items")
    (job.root / "collection.json").unlink()
    write_scene(job.root.parent / "in" / "late.tif", 9)
    assert leave(job, run_archive(job, identity))
    assert len(list((job.root / "items").iterdir())) == 4
    shutil.rmtree(job.root / "items")
    write_scene(job.root.parent / "in" / "alpha.tif", 10)
    assert leave(job, run_archive(job, identity))
    assert len(list((job.root / "items").iterdir())) == 5
    features = json.loads((job.root / "footprints.geojson").read_text())["features"]
    scenes = [feature["properties"]["scene"] for feature in features]
    assert scenes == sorted(scenes)  # whichever night they came in
