"""Servers that list their scenes and do not give them: these are left for later."""

from __future__ import annotations

import json

import pytest

from tests.archive.world import write_archive, write_job
from tests.faults.server import serving
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.remote import server_of
from tilemapper.archive.run import run_archive
from tilemapper.archive.scene import Scene
from tilemapper.archive.servers import IN_A_ROW, Servers
from tilemapper.raster import opening


def test_scenes_that_a_server_does_not_give_are_left_for_later_and_others_done(
    tmp_path, models, identity, monkeypatch
):
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    web, here = tmp_path / "web", tmp_path / "in"
    names = [path.relative_to(web) for path in write_archive(web, IN_A_ROW + 2)]
    write_archive(here, 1)
    with serving(web) as url:
        path = write_job(tmp_path, models / "identity", retries=1)
        remote = [f"{url}/shut/0/{name}" for name in names]
        gone = f"{url}/good/0/none.tif"  # of another address, but the same server
        scenes = json.dumps([*remote, "in", gone])
        path.write_text(path.read_text().replace('["in"]', scenes))
        job, told = load_job(path), []
        (web / "shut").touch()
        first = run_archive(job, identity, tell=told.append)
        assert (first.done, first.failed, first.left, first.exit_code) == (1, 1, len(names), 75)
        later = [event["error"] for event in told if event.get("state") == "later"]
        # Three in the first round, and one more to see whether the server is back.
        assert len(later) == IN_A_ROW
        assert all("in trouble (HTTP error code: 500)" in line for line in later)
        (web / "shut").unlink()
        again = run_archive(job, identity)
        assert (again.done, again.already_done, again.failed) == (len(names), 1, 1)
        assert again.exit_code == 3


def test_a_server_that_does_not_give_one_scene_is_asked_for_the_others(
    tmp_path, models, identity, monkeypatch
):
    monkeypatch.setitem(opening._READ_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.02")
    web = tmp_path / "web"
    names = [path.relative_to(web) for path in write_archive(web, 4)]
    with serving(web) as url:
        path = write_job(tmp_path, models / "identity", retries=1)
        scenes = [f"{url}/{'shut' if n == 0 else 'good'}/0/{name}" for n, name in enumerate(names)]
        path.write_text(path.read_text().replace('["in"]', json.dumps(scenes)))
        (web / "shut").touch()
        for _ in range(2):
            summary = run_archive(load_job(path), identity)
            assert summary.done + summary.already_done == 3
            assert (summary.failed, summary.left, summary.exit_code) == (0, 1, 75)


def test_a_server_is_left_alone_after_some_scenes_in_a_row_until_the_next_round():
    servers = Servers()
    one, other = Scene("s3://maps/a.tif", "a"), Scene("https://h.org/a.tif", "a")
    local = Scene("/data/a.tif", "a")
    for scene in (one, local):
        for _ in range(IN_A_ROW - 1):
            servers.silent(scene, "silent")
        servers.answered(scene)
        assert scene.id not in servers.lines
        for _ in range(IN_A_ROW):
            assert not servers.is_away(scene)
            servers.silent(scene, "silent")
    assert [servers.is_away(scene) for scene in (one, other, local)] == [True, False, False]
    assert set(servers.lines) == {one.id, local.id}
    servers.try_again()
    assert not servers.is_away(one)
    servers.silent(one, "silent")
    assert servers.is_away(one)


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("s3://maps/a/b.tif", "s3://maps"), ("https://me:word@h.org:8/a.tif?x", "https://h.org:8"),
        ("/data/a.tif", None), ("a.tif", None),
    ],
)  # fmt: skip
def test_a_server_is_known_by_its_bucket_or_host(path, server):
    assert server_of(path) == server
