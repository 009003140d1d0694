"""Object stores and web servers, against a real S3 server in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import rasterio
from botocore.exceptions import ClientError, EndpointConnectionError
from numpy.typing import NDArray
from rasterio.shutil import copy

from tests.archive.world import write_archive, write_job, write_scene
from tests.ports import held_ports
from tilemapper.archive import remote, storing, worker
from tilemapper.archive.answers import code_of, is_passing
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.mosaic_vrt import gdal_path
from tilemapper.archive.run import run_archive
from tilemapper.archive.scenes import discover
from tilemapper.errors import RasterError, TargetError, TryAgainError
from tilemapper.networks.model import open_model
from tilemapper.raster.source import SourceView
from tilemapper.render.render import render
from tilemapper.render.workers import Order, examine, versions

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("moto") and importlib.util.find_spec("flask")),
    reason="moto[server] is not installed",
)
SECRETS = ("AKIAEXAMPLE", "wJalrSECRET", "hunter2", "SIGNEDabc")


@pytest.fixture(scope="module")
def server():
    """Port of an S3 server that also answers plain GETs, ranges included."""
    with held_ports(1) as (port,):
        log = subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def store(server, monkeypatch):
    """A boto3 client on an empty bucket; GDAL and boto3 find the same server by the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": SECRETS[0], "AWS_SECRET_ACCESS_KEY": SECRETS[1],
        "AWS_S3_ENDPOINT": f"127.0.0.1:{server}", "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    remote.s3_client.cache_clear()
    client = remote.s3_client()
    client.create_bucket(Bucket="maps")
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="maps"):
        for item in page.get("Contents", ()):
            client.delete_object(Bucket="maps", Key=item["Key"])
    client.delete_bucket(Bucket="maps")
    client.close()
    remote.s3_client.cache_clear()


def put_public(client, key: str, data: bytes) -> None:
    client.put_object(Bucket="maps", Key=key, Body=data, ACL="public-read")


def keys(client) -> list[str]:
    found = client.list_objects_v2(Bucket="maps").get("Contents", ())
    return [item["Key"] for item in found]


def job_of(folder: Path, model: Path, scenes: list[str], template: str):
    path = write_job(folder, model, render="batch_size = 1")
    text = path.read_text().replace('["in"]', json.dumps(scenes))
    text = text.replace(
        'template = "out/{relpath}_map.tif"', f'template = "{template}"\nwork = "work"'
    )
    path.write_text(text)
    return load_job(path)


def no_secret_in(folder: Path, *more: str) -> None:
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts |= {f"text {i}": text.encode() for i, text in enumerate(more)}
    for name, data in texts.items():
        for secret in SECRETS:
            assert secret.encode() not in data, name


def test_scenes_of_a_bucket_are_rendered_into_it_and_an_unchanged_one_is_left_alone(
    store, tmp_path, models, identity
):
    for path in write_archive(tmp_path / "made", 3):
        store.upload_file(str(path), "maps", f"in/{path.parent.name}/{path.name}")
    store.put_object(Bucket="maps", Key="in/readme.txt", Body=b"no raster")
    job = job_of(
        tmp_path, models / "identity", ["s3://maps/in/"], "s3://maps/out/{relpath}_map.tif"
    )
    events: list[dict] = []
    summary = run_archive(job, identity, tell=events.append)
    assert (summary.done, summary.exit_code) == (3, 0), summary.failures
    outputs = [key for key in keys(store) if key.startswith("out/")]
    assert outputs == [
        "out/2026-03-01/scene_00000_map.tif", "out/2026-03-02/scene_00001_map.tif",
        "out/2026-03-03/scene_00002_map.tif",
    ]  # fmt: skip
    row = next(iter(Ledger(job.work / "ledger.sqlite").select("1 ORDER BY source")))
    head = store.head_object(Bucket="maps", Key=outputs[0])
    assert head["Metadata"]["sha256"] == row["output_sha256"]
    assert row["etag"]
    body = store.get_object(Bucket="maps", Key=outputs[0])["Body"].read()
    assert SECRETS[0].encode() not in body
    (tmp_path / "back.tif").write_bytes(body)
    with (
        rasterio.open(tmp_path / "back.tif") as back,
        rasterio.open(tmp_path / "made" / "2026-03-01" / "scene_00000.tif") as made,
    ):
        assert (back.read() == made.read()).all()
        assert (back.crs, back.transform) == (made.crs, made.transform)
    no_secret_in(tmp_path / "work", json.dumps(events))

    assert run_archive(job, identity).already_done == 3
    changed = write_scene(tmp_path / "new.tif", 77)
    store.upload_file(str(changed), "maps", "in/2026-03-01/scene_00000.tif")
    store.delete_object(Bucket="maps", Key=outputs[1])
    store.put_object(Bucket="maps", Key=outputs[2], Body=b"altered")
    told: list[dict] = []
    run_archive(job, identity, tell=told.append)
    assert told[0]["reasons"] == {"source changed": 1, "output missing": 1, "output altered": 1}
    assert not list((job.work / "staging").iterdir())


def painted(source: str, folder: Path, model: Path, **options) -> NDArray[np.uint8]:
    render(source, folder / "map.tif", model, overwrite=True, batch_size=1, **options)
    with rasterio.open(folder / "map.tif") as src:
        return src.read()


@pytest.mark.parametrize("kind", ["s3", "http", "members"])
def test_a_raster_that_is_another_by_now_is_read_anew_in_the_same_process(
    store, server, tmp_path, models, kind
):
    """GDAL kept the first one's pixels: a notebook, or a standing worker, painted those."""
    address = "s3://maps/a.tif" if kind == "s3" else f"http://127.0.0.1:{server}/maps/a.tif"
    source = str(tmp_path / "a.vrt") if kind == "members" else address
    for index, size in enumerate((40, 40, 300)):  # of the same size, and of another
        made = write_scene(tmp_path / "made.tif", index, size=size, at=500_000)
        put_public(store, "a.tif", made.read_bytes())
        if kind == "members":
            copy(made, source, driver="VRT")
            text = Path(source).read_text()
            name = re.search("<SourceFilename.*</SourceFilename>", text)
            assert name is not None
            remote_name = f"<SourceFilename>{gdal_path(address)}</SourceFilename>"
            Path(source).write_text(text.replace(name[0], remote_name))
        with rasterio.open(made) as src:
            found = painted(source, tmp_path, models / "identity", allow_drivers=("VRT",))
            assert (found == src.read()).all()


def test_a_worker_reads_anew_what_its_client_found_to_be_another(
    store, server, tmp_path, models, forks
):
    """It read the first one for an earlier render, and refused the second as changed, for good."""
    address, model = f"http://127.0.0.1:{server}/maps/a.tif", open_model(models / "identity")
    order = tmp_path / "order"
    client = (
        "import pickle, sys; from pathlib import Path\n"
        "from tilemapper.networks.model import open_model\n"
        "from tilemapper.render.planning import plan_render\n"
        "plan = plan_render(sys.argv[1], None, open_model(sys.argv[2]), batch_size=1)\n"
        "Path(sys.argv[3]).write_bytes(pickle.dumps(plan))"
    )
    for index, size in enumerate((40, 300)):
        made = write_scene(tmp_path / "made.tif", index, size=size)
        put_public(store, "a.tif", made.read_bytes())
        planned = forks.run(address, model.folder, order, cwd=tmp_path, code=client)
        assert planned.code == 0, planned.stderr
        plan = pickle.loads(order.read_bytes())
        look = examine(Order(plan, model, tmp_path, ("", ""), versions()))
        assert look.faults == ()
        with rasterio.open(made) as src, SourceView(plan.source) as view:
            read, _ = view.read(row=0, col=0, height=size, width=size)
            assert (read == np.moveaxis(src.read(), 0, 2)).all()


def test_a_kill_before_the_last_copy_leaves_nothing_under_the_final_key(
    store, tmp_path, models, identity, monkeypatch
):
    path = write_scene(tmp_path / "a.tif", 1)
    job = job_of(tmp_path, models / "identity", [str(path)], "s3://maps/out/{stem}.tif")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storing, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            run_archive(job, identity)
    assert "out/a.tif" not in keys(store)
    assert run_archive(job, identity).done == 1
    assert keys(store) == ["out/a.tif"]


def test_a_bucket_that_is_not_there_is_named_without_credentials(store, tmp_path, models, identity):
    path = write_scene(tmp_path / "a.tif", 1)
    job = job_of(tmp_path, models / "identity", [str(path)], "s3://nowhere/{stem}.tif")
    with pytest.raises(remote.JobError, match=r"s3://nowhere/: cannot be listed \(NoSuchBucket\)"):
        run_archive(job, identity)


def test_a_signed_address_leaves_no_secret_anywhere(
    store, server, tmp_path, models, identity, capfd
):
    put_public(store, "a.tif", write_scene(tmp_path / "a.tif", 1).read_bytes())
    put_public(store, "broken.tif", b"II*\0 not really a raster")
    base = f"http://user:hunter2@127.0.0.1:{server}/maps"
    signed = "X-Amz-Expires=60&sig=SIGNEDabc"
    (tmp_path / "list.txt").write_text(
        f"{base}/a.tif?{signed}\n{base}/broken.tif?{signed}\n{base}/missing.tif?{signed}\n"
    )
    job = job_of(tmp_path, models / "identity", ["list.txt"], "out/{stem}.tif")
    events: list[dict] = []
    summary = run_archive(job, identity, tell=events.append)
    (tmp_path / "list.txt").unlink()
    assert (summary.done, summary.failed) == (1, 2), summary.failures
    no_secret_in(tmp_path, json.dumps(events), json.dumps(summary.to_json()), *capfd.readouterr())


def test_an_index_page_is_a_prefix(store, server, tmp_path, monkeypatch):
    for name in ("x_20260301.tif", "sub/y.tif"):
        put_public(store, name, write_scene(tmp_path / "a.tif", 1).read_bytes())
    base = f"http://127.0.0.1:{server}/maps/"
    pages = {
        base: b'<a href="../">up</a><a href="x_20260301.tif">x</a><a href="sub/">s</a>'
        b'<a href="http://elsewhere.example/z.tif">z</a><a href="?C=M">sort</a>',
        base + "sub/": b'<a href="y.tif">y</a><a href="/maps/">top</a>',
    }
    monkeypatch.setattr(remote, "fetch", lambda url: pages[url])
    (tmp_path / "job").mkdir()
    job = job_of(tmp_path / "job", tmp_path, [base], "out/{relpath}.tif")
    found = discover(job.source)
    assert [(scene.relpath, scene.date) for scene in found] == [
        ("sub/y", None), ("x_20260301", "2026-03-01"),
    ]  # fmt: skip
    assert all(scene.etag for scene in found)


def test_a_glob_in_a_bucket_finds_what_matches(store, tmp_path):
    for name in ("a/x_1.tif", "a/y_1.tif", "b/x_2.tif"):
        store.put_object(Bucket="maps", Key=f"in/{name}", Body=b"II*\0")
    job = job_of(tmp_path, tmp_path, ["s3://maps/in/*/x_*.tif"], "out/{stem}.tif")
    assert [scene.relpath for scene in discover(job.source)] == ["a/x_1", "b/x_2"]


def test_a_list_on_a_server_may_not_name_local_files(store, server, tmp_path):
    store.put_object(Bucket="maps", Key="list.txt", Body=b"/etc/passwd\n")
    job = job_of(tmp_path, tmp_path, ["s3://maps/list.txt"], "out/{stem}.tif")
    with pytest.raises(remote.JobError, match="names a local path"):
        discover(job.source)


class InTrouble:
    """A client whose named calls are answered with a code or word, and all others as ever."""

    def __init__(self, client, code: int | str, *calls: str) -> None:
        self._client, self._code, self._calls = client, code, calls

    def __getattr__(self, name: str):
        if name not in self._calls:
            return getattr(self._client, name)

        def refuse(*_args, **_more):
            answer = {
                "Error": {"Code": str(self._code)},
                "ResponseMetadata": {
                    "HTTPStatusCode": self._code if isinstance(self._code, int) else 400
                },
            }
            raise ClientError(answer, name)

        return refuse


def test_a_store_in_trouble_is_not_taken_for_one_that_has_nothing(
    store, tmp_path, models, identity, monkeypatch
):
    path = write_scene(tmp_path / "a.tif", 1)
    job = job_of(tmp_path, models / "identity", [str(path)], "s3://maps/out/{stem}.tif")
    run_archive(job, identity)
    # Sent again, the object has the same bytes under another stamp: its checksum must be asked for.
    body = store.get_object(Bucket="maps", Key="out/a.tif")["Body"].read()
    sha256 = store.head_object(Bucket="maps", Key="out/a.tif")["Metadata"]["sha256"]
    with Ledger(job.work / "ledger.sqlite") as ledger:
        ledger.update([("other", next(iter(ledger.rows())))], "output_stamp=?")
    for code, kind in ((503, TryAgainError), (403, TargetError)):
        with monkeypatch.context() as patch:
            troubled = InTrouble(store, code, "head_object")
            patch.setattr(remote, "s3_client", lambda troubled=troubled: troubled)
            with pytest.raises(kind, match=rf"s3://maps/out/a\.tif: the store .* \({code}\)"):
                run_archive(job, identity)
    assert run_archive(job, identity).already_done == 1
    store.put_object(Bucket="maps", Key="out/a.tif", Body=body, Metadata={"sha256": sha256})
    assert run_archive(job, identity).already_done == 1
    assert storing.noted_sha256("s3://maps/out/nothing.tif") is None


def test_a_store_that_fails_while_it_is_written_ends_the_run_for_later_and_blames_no_scene(
    store, tmp_path, models, identity, monkeypatch
):
    write_archive(tmp_path / "in", 3)
    job = job_of(tmp_path, models / "identity", ["in"], "s3://maps/out/{stem}.tif")
    for call in ("upload_file", "copy"):
        with monkeypatch.context() as patch:
            troubled = InTrouble(store, 503, call)
            patch.setattr(remote, "s3_client", lambda troubled=troubled: troubled)
            summary = run_archive(job, identity)
        assert (summary.exit_code, summary.done, summary.failed) == (75, 0, 0)
        assert "does not answer (503)" in str(summary.stopped)
    assert run_archive(job, identity).done == 3


def test_a_store_is_in_trouble_where_it_gives_no_byte(store, monkeypatch):
    store.put_object(Bucket="maps", Key="a.tif", Body=b"abc")
    assert remote.trouble("s3://maps/a.tif") is None
    assert remote.trouble("s3://maps/none.tif") is None  # it says that there is none
    assert remote.trouble("/data/a.tif") is None
    for code, troubled in ((503, True), (403, False)):
        with monkeypatch.context() as patch:
            client = InTrouble(store, code, "get_object")
            patch.setattr(remote, "s3_client", lambda client=client: client)
            said = remote.trouble("s3://maps/a.tif")
        assert (said is not None) == troubled
        assert said is None or "a.tif: is not given (503); try again later" in said


def test_a_done_scene_whose_server_is_down_stays_done_and_is_looked_at_later(
    store, server, tmp_path, models, identity, monkeypatch
):
    for name in ("a.tif", "b.tif"):
        put_public(store, name, write_scene(tmp_path / "made.tif", 1).read_bytes())
    scenes = [f"http://127.0.0.1:{server}/maps/{name}" for name in ("a.tif", "b.tif", "none.tif")]
    job = job_of(tmp_path, models / "identity", scenes, "out/{stem}.tif")
    first = run_archive(job, identity)
    assert (first.done, first.failed) == (2, 1)
    monkeypatch.setattr(remote, "ASKED_AGAIN_AFTER_S", ())
    real = urllib.request.urlopen

    def busy(request, **more):
        if request.full_url.endswith(("/a.tif", "/none.tif")):
            raise urllib.error.HTTPError(request.full_url, 503, "busy", {}, None)
        return real(request, **more)

    told: list[dict] = []
    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", busy)
        summary = run_archive(job, identity, tell=told.append)
    assert (summary.done, summary.failed, summary.left, summary.exit_code) == (0, 0, 2, 75)
    later = next(event for event in told if event.get("state") == "later")
    assert "a.tif: cannot be looked at (503); try again later" in later["error"]
    again = run_archive(job, identity)
    assert (again.done, again.already_done, again.failed, again.exit_code) == (0, 2, 1, 3)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TimeoutError(), True), (ConnectionRefusedError(), True),
        (urllib.error.URLError(TimeoutError()), True),
        (urllib.error.URLError(socket.gaierror(socket.EAI_AGAIN, "")), True),
        (urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "")), False),
        (EndpointConnectionError(endpoint_url="http://x"), True), (ValueError(), False),
    ],
    ids=repr,
)  # fmt: skip
def test_no_answer_is_told_from_a_refusal(error, passes):
    assert is_passing(error) is passes
    assert code_of(error) == type(error).__name__


@pytest.mark.parametrize("said", [403, "ExpiredToken"])
def test_nothing_is_rendered_for_a_store_that_takes_no_object(
    store, tmp_path, models, identity, monkeypatch, said
):
    path = write_scene(tmp_path / "a.tif", 1)
    job = job_of(tmp_path, models / "identity", [str(path)], "s3://maps/out/{stem}.tif")
    troubled = InTrouble(store, said, "put_object")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "s3_client", lambda: troubled)
        patch.setattr(worker, "render", None)
        with pytest.raises(TargetError, match=rf"s3://maps/out/a\.tif: .* refuses it \({said}\)"):
            run_archive(job, identity)
    assert run_archive(job, identity).done == 1
    assert keys(store) == ["out/a.tif"]


def test_a_store_that_begins_to_refuse_ends_the_run_and_the_next_has_the_rest(
    store, tmp_path, models, identity, monkeypatch
):
    scenes = [str(path) for path in write_archive(tmp_path / "in", 3)]
    job = job_of(tmp_path, models / "identity", scenes, "s3://maps/out/{stem}.tif")
    expired = InTrouble(store, "ExpiredToken", "put_object", "upload_file")

    with monkeypatch.context() as patch:

        def tell(event):
            if event.get("state") == "done":
                patch.setattr(remote, "s3_client", lambda: expired)

        summary = run_archive(job, identity, tell=tell)
    assert (summary.done, summary.failed, summary.left, summary.exit_code) == (1, 0, 2, 75)
    assert "refuses it (ExpiredToken)" in summary.stopped
    summary = run_archive(job, identity)
    assert (summary.done, summary.already_done) == (2, 1)


def test_scenes_of_a_bucket_wait_for_new_credentials_where_theirs_expired(
    store, tmp_path, models, identity, monkeypatch
):
    store.upload_file(str(write_scene(tmp_path / "a.tif", 1)), "maps", "in/a.tif")
    job = job_of(tmp_path, models / "identity", ["s3://maps/in/"], "out/{stem}.tif")

    def refuse(*_args, **_more):
        raise RasterError("s3://maps/in/a.tif: the server does not give it")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "render", refuse)
        for said, state in (("ExpiredToken", "left"), (403, "failed")):
            patch.setattr(remote, "s3_client", lambda w=said: InTrouble(store, w, "get_object"))
            assert getattr(run_archive(job, identity), state) == 1
