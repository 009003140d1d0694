"""Whole maps: cancelled at the wrong moment, failed, wanted again, fetched."""

from __future__ import annotations

import errno
import os
import threading
import time

import pytest

from tests.serve.test_app import png, upload, wait_for
from tilemapper.errors import DiskFullError


def begin(client, scene=None):
    scene = scene or upload(client, png(400, 400)).json()["id"]
    said = client.post("/api/jobs", json={"scene": scene, "model": "identity"}).json()
    return scene, said["id"]


def wait_until(true):
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("did not come true in time")


def test_a_map_that_is_wanted_again_is_no_job_that_was_cancelled(serve, monkeypatch):
    with serve() as (service, client):
        go, run_batch = threading.Event(), service.generator.run_batch
        held = lambda *batch: go.wait(60) and run_batch(*batch)  # noqa: E731
        monkeypatch.setattr(service.generator, "run_batch", held)
        scene, first = begin(client)
        wait_for(client, first, "running")
        assert client.delete(f"/api/jobs/{first}").status_code == 204
        _, second = begin(client, scene)
        go.set()
        assert second != first
        assert wait_for(client, second, "done", "failed")["bytes"] > 0
        assert client.get(f"/api/jobs/{first}").status_code == 404


def test_a_job_that_is_cancelled_after_its_last_batch_leaves_nothing(serve, monkeypatch):
    last, go = threading.Event(), threading.Event()

    def finishing(source, target, *rest, **options):
        last.set()
        go.wait(60)
        target.write_bytes(b"a map")

    monkeypatch.setattr("tilemapper.serve.jobs.render_whole", finishing)
    with serve() as (service, client):
        _, job = begin(client)
        assert last.wait(60)
        assert client.delete(f"/api/jobs/{job}").status_code == 204
        go.set()
        wait_until(lambda: client.get(f"/api/jobs/{job}").json().get("state") != "running")
        assert client.get("/api/jobs").json() == []
        assert not list(service.folder.glob("job-*"))


def test_a_job_that_fails_takes_no_room_on_the_disk(serve, monkeypatch):
    def full(source, target, *rest, **options):
        target.write_bytes(b"half of a map")
        raise DiskFullError("no room")

    monkeypatch.setattr("tilemapper.serve.jobs.render_whole", full)
    with serve() as (service, client):
        _, job = begin(client)
        assert wait_for(client, job, "failed")["error"] == "no room"
        assert not list(service.folder.glob("job-*"))


def test_a_list_of_jobs_does_not_stumble_over_a_map_that_goes(serve):
    with serve() as (service, client):
        _, number = begin(client)
        wait_for(client, number, "done")
        job = service.jobs.get(number)
        size = job.target.stat().st_size
        job.target.unlink()  # as when it is removed between the list and its lines
        assert client.get("/api/jobs").json()[0]["bytes"] == size


def test_a_png_that_finds_no_room_is_said(serve, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serve() as (service, client):
        _, job = begin(client)
        wait_for(client, job, "done")
        monkeypatch.setattr("tilemapper.serve.exporting.png_chunks", full)
        assert client.get(f"/api/jobs/{job}/map.png").status_code == 507
        assert [path.name for path in (service.folder / f"job-{job}").iterdir()] == ["map.tif"]


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_a_map_that_is_removed_just_when_it_is_asked_for_is_sent_whole(serve, monkeypatch, kind):
    with serve() as (service, client):
        _, job = begin(client)
        wait_for(client, job, "done")
        whole = client.get(f"/api/jobs/{job}/map.{kind}").content
        download = service.download

        def removed_then(*asked):
            answer = download(*asked)
            service.jobs.cancel(job)
            return answer

        monkeypatch.setattr(service, "download", removed_then)
        answer = client.get(f"/api/jobs/{job}/map.{kind}", headers={"Range": "bytes=10-"})
        assert (answer.status_code, answer.content) == (206, whole[10:])
        assert not list(service.folder.glob("job-*"))


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_a_map_that_was_removed_before_it_could_be_opened_is_gone(serve, monkeypatch, kind):
    with serve() as (service, client):
        _, number = begin(client)
        wait_for(client, number, "done")
        job = service.jobs.get(number)

        def removed_first(wanted):
            monkeypatch.undo()
            service.jobs.cancel(wanted)
            return job

        monkeypatch.setattr(service.jobs, "get", removed_first)
        answer = client.get(f"/api/jobs/{number}/map.{kind}")
        assert (answer.status_code, "not here any more" in answer.text) == (404, True)


def test_a_map_that_cannot_be_opened_for_now_may_be_asked_for_later(serve, monkeypatch):
    def too_many(path, *_args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    with serve() as (_, client):
        _, job = begin(client)
        wait_for(client, job, "done")
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.open", too_many)
            answer = client.get(f"/api/jobs/{job}/map.tif")
        assert (answer.status_code, "ulimit -n" in answer.text) == (503, True)
        assert client.get(f"/api/jobs/{job}/map.tif").status_code == 200


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_a_map_of_an_earlier_server_is_not_taken_from_the_browsers_cache(serve, kind):
    with serve() as (_, client):
        _, job = begin(client)
        wait_for(client, job, "done")
        answer = client.get(f"/api/jobs/{job}/map.{kind}")
        assert answer.headers["Cache-Control"] == "no-cache"
