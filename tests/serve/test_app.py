"""The doors: folders, uploads, other sites' pages, downloads, and what is refused."""

from __future__ import annotations

import errno
import io
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
import rasterio
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal
from PIL import Image

import tilemapper
from tests.conftest import noise, read_raster, write_raster
from tests.serve.conftest import FIRST, ZOOM, aligned, decoded, mercator_transform, mosaic
from tilemapper.raster import opening
from tilemapper.serve.app import make_app
from tilemapper.serve.guard import Guard


def png(height=60, width=80):
    stream = io.BytesIO()
    Image.fromarray(noise(height, width).transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def upload(client, data, name="town.png"):
    return client.post(f"/api/uploads?name={name}", content=data)


def wait_for(client, job, *states):
    for _ in range(1200):
        said = client.get(f"/api/jobs/{job}").json()
        if said.get("state") in states:
            return said
        time.sleep(0.05)
    raise AssertionError(said)


def test_an_upload_is_shown_and_its_name_is_only_a_name(serve):
    with serve() as (service, client):
        answer = upload(client, png(), "../../etc/<town>.png")
        assert answer.status_code == 200, answer.text
        scene = answer.json()
        assert scene["name"] == "_town_.png"
        assert (scene["height"], scene["width"], scene["uploaded"]) == (60, 80, True)
        assert str(service.folder) not in answer.text
        assert client.get(f"/xyz/{scene['id']}/identity/0/0/0.png").status_code == 200
        assert client.delete(f"/api/scenes/{scene['id']}").status_code == 204
        assert client.get(f"/xyz/{scene['id']}/identity/0/0/0.png").status_code == 404
        assert list(service.folder.iterdir()) == []


def test_what_is_no_image_is_refused_in_one_line_without_our_paths(serve):
    vrt = b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>"
    with serve() as (service, client):
        for data in (b"no image at all", vrt, png()[:40], b"GIF89a" + bytes(40)):
            answer = upload(client, data)
            assert answer.status_code == 422
            said = answer.json()["error"]
            assert said.startswith("town.png: ")
            assert str(service.folder) not in said
        assert upload(client, b"").status_code == 422
        assert list(service.folder.iterdir()) == []
        assert service.scenes.all() == []


def test_bombs_and_giants_are_refused(serve, tmp_path):
    bomb = tmp_path / "bomb.tif"
    # Sparse: kilobytes that promise gigapixels.
    place = {"crs": "EPSG:3857", "transform": mercator_transform()}
    sparse = place | {"tiled": True, "sparse_ok": True, "compress": "deflate", "dtype": "uint8"}
    with rasterio.open(bomb, "w", driver="GTiff", count=3, height=60_000, width=60_000, **sparse):
        pass
    with serve(upload_bytes=2 * 2**20, upload_pixels=5000) as (service, client):
        answer = upload(client, bomb.read_bytes(), "bomb.tif")
        assert answer.status_code in (413, 422)
        assert "bomb" in answer.json()["error"]
        answer = upload(client, png(100, 100))
        assert answer.status_code == 413
        assert "100 x 100 px" in answer.json()["error"]
        assert upload(client, bytes(3 * 2**20)).status_code == 413
        chunks = (bytes(2**20) for _ in range(3))  # without a declared length
        assert client.post("/api/uploads", content=chunks).status_code == 413
        assert upload(client, png()).status_code == 200
        assert len(list(service.folder.iterdir())) == 1


def test_a_full_disk_is_said_and_nothing_is_left(serve, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serve() as (service, client):
        monkeypatch.setattr("tilemapper.serve.uploads.asyncio.to_thread", full)
        answer = upload(client, png())
        monkeypatch.undo()
        assert answer.status_code == 507
        assert "no room" in answer.json()["error"]
        assert list(service.folder.iterdir()) == []
        assert upload(client, png()).status_code == 200


def test_uploads_whose_folder_was_swept_are_said_to_have_none(serve):
    with serve() as (service, client):
        service.folder.rmdir()
        answer = upload(client, png())
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("the upload cannot be kept (No such file")
        assert str(service.folder) not in answer.text


def test_only_so_many_uploads_are_kept(serve):
    with serve(uploads_kept=3) as (service, client):
        ids = [upload(client, png(10 + i, 20), f"{i}.png").json()["id"] for i in range(6)]
        assert [scene.id for scene in service.scenes.all()] == ids[3:]
        assert len(list(service.folder.iterdir())) == 3


def test_nothing_outside_the_allowed_folders_is_listed_or_opened(tmp_path, serve):
    inside, outside = tmp_path / "in", tmp_path / "outside"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    secret = write_raster(outside / "secret.tif", noise(40, 50))
    write_raster(inside / "sub" / "a.tif", noise(40, 50))
    (inside / "link.tif").symlink_to(secret)
    (inside / "way_out").symlink_to(outside)
    write_raster(inside / "sub" / "b.tif", noise(40, 50))
    (inside / "sub" / "b.tif.ovr").symlink_to(secret)
    (tmp_path / "in_beside").mkdir()
    with serve(allow=(inside,)) as (service, client):
        listed = client.get("/api/folders/0").json()
        assert listed["folders"] == ["sub"]
        for path in (
            "../outside/secret.tif",
            str(secret),
            "link.tif",
            "way_out/secret.tif",
            "sub/../../outside/secret.tif",
            "sub/b.tif",
            "../in_beside",
            "nosuch.tif",
            "sub",
            "\0",
            "x" * 4000,
        ):
            answer = client.post("/api/scenes", json={"folder": 0, "path": path})
            assert answer.status_code == 404, path
        for path in ("..", "way_out", "../outside", "/etc"):
            assert client.get("/api/folders/0", params={"path": path}).status_code == 404
        assert client.get("/api/folders/1").status_code == 404
        assert client.post("/api/scenes", json={"folder": -1, "path": ""}).status_code == 404
        assert service.scenes.all() == []
        good = client.post("/api/scenes", json={"folder": 0, "path": "sub/a.tif"})
        assert good.status_code == 200
        assert client.get("/api/folders/0", params={"path": "sub"}).json()["rasters"] == [
            "a.tif",
            "b.tif",
        ]


def test_names_that_are_no_text_are_left_out_or_refused(tmp_path, serve):
    name = os.fsdecode(b"caf\xe9.tif")
    write_raster(tmp_path / "a.tif", noise(40, 50))
    (tmp_path / "a.tif").rename(tmp_path / name)
    write_raster(tmp_path / "b.tif", noise(40, 50))
    (tmp_path / os.fsdecode(b"\xe9")).mkdir()
    with serve(allow=(tmp_path, tmp_path / os.fsdecode(b"\xe9"))) as (_, client):
        listed = client.get("/api/folders/0").json()
        assert (listed["folders"], listed["rasters"]) == ([], ["b.tif"])
        assert client.get("/api/config").json()["folders"] == [tmp_path.name, "?"]
        for body, code in (
            (b'{"folder": 0, "path": "\\ud800.tif"}', 422),
            (b'{"folder": "\\ud800", "path": "b.tif"}', 422),
            (b'{"folder": 0, "path": "\xff"}', 400),
        ):
            answer = client.post(
                "/api/scenes", content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == code, answer.text


def test_all_that_is_refused_is_said_in_one_way(serve, monkeypatch):
    with serve() as (service, client):
        answer = client.post("/api/jobs", json={"scene": 1})
        assert answer.status_code == 422
        assert answer.json() == {
            "error": "body.scene: Input should be a valid string; body.model: Field required; "
            "/api says what is needed"
        }
        answer = client.get("/", headers={"Host": "evil.example"})
        assert list(answer.json()) == ["error"]
        monkeypatch.setattr(service.jobs, "all", lambda: 1 / 0)
        answer = client.get("/api/jobs")
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("GET /api/jobs: ZeroDivisionError, a defect")
        described = client.get("/openapi.json").json()["paths"]["/api/jobs"]["post"]["responses"]
        assert set(described) == {"200", "default"}


def test_head_answers_as_get_does_without_a_body(tmp_path, serve):
    with serve(aligned(tmp_path / "city.tif", 256, 256)) as (service, client):
        scene = service.scenes.all()[0].id
        for path in ("/", "/api/config", f"/xyz/{scene}/source/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png"):
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers == got.headers
        assert client.head("/nowhere").status_code == 404
        assert client.head("/api/uploads").status_code == 405


def test_advice_for_render_alone_is_said_to_be_that(tmp_path, serve):
    place = {"crs": "EPSG:3857", "transform": mercator_transform()}
    write_raster(tmp_path / "grey.tif", noise(40, 50, bands=1), **place)
    with serve(allow=(tmp_path,)) as (_service, client):
        answer = client.post("/api/scenes", json={"folder": 0, "path": "grey.tif"})
        assert answer.json()["error"].endswith("give tilemapper render --bidx 1,1,1")
        said = upload(client, b"<VRTDataset></VRTDataset>", "a.vrt").json()["error"]
        assert "; tilemapper serve FILE --allow-driver VRT if you trust it" in said


def test_a_path_that_is_none_is_said_as_all_else_is(serve):
    with serve() as (_service, client):
        answer = client.get("/nowhere")
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
        answer = client.delete("/api/config")
        assert (answer.status_code, list(answer.json())) == (405, ["error"])
        assert answer.headers["allow"] == "GET"


def test_a_folder_that_may_not_be_read_is_said(tmp_path, serve, monkeypatch):
    def closed(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with serve(allow=(tmp_path,)) as (_, client):
        monkeypatch.setattr("tilemapper.serve.folders.os.scandir", closed)
        answer = client.get("/api/folders/0")
        monkeypatch.undo()
    assert answer.status_code == 404
    assert answer.json()["error"] == ".: cannot be listed (Permission denied); check rights"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"]
)
def test_a_host_that_is_not_ours_is_refused(serve, host):
    with serve() as (_, client):
        assert client.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8090", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_loopback_by_any_name_is_served(serve, host):
    with serve() as (_, client):
        assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "code"), [("10.0.0.1", 200), ("maps.example:80", 200), ("evil.example", 403)]
)
def test_a_public_server_is_asked_by_addresses_and_its_own_names(serve, host, code):
    with serve() as (service, _):
        app = Guard(make_app(service), public=True, names=["maps.example"])
        client = TestClient(app, base_url="http://127.0.0.1")
        assert client.get("/", headers={"Host": host}).status_code == code


def test_other_sites_pages_are_refused(serve):
    with serve() as (service, client):
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://[bad"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        ):
            answer = client.post("/api/uploads", content=png(), headers=headers)
            assert answer.status_code == 403
            assert client.get("/api/config", headers=headers).status_code == 403
        assert service.scenes.all() == []
        answer = client.get("/api/config", headers={"Origin": "http://127.0.0.1"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_needs_nothing_from_elsewhere(serve):
    with serve() as (_, client):
        for name in ("/", "/api", "/openapi.json"):
            answer = client.get(name)
            assert answer.status_code == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        for name in ("page.js", "viewer.js", "layer.js", "page.css", "api.js"):
            answer = client.get(f"/page/{name}")
            assert answer.status_code == 200
            assert "http://" not in answer.text
            assert "https://" not in answer.text
        assert client.get("/page/..%2fapp.py").status_code == 404


def test_a_whole_map_is_rendered_and_downloaded(tmp_path, serve, models):
    mask = np.ones((300, 400), bool)
    mask[50:90, 60:200] = False
    source = aligned(tmp_path / "city.tif", 300, 400, mask=mask)
    tilemapper.render(source, tmp_path / "m.tif", models / "unet", device="cpu", precision="fp32")
    with serve(source, live_tiles=1) as (service, client):
        scene = service.scenes.all()[0].id
        far = f"/xyz/{scene}/unet/{ZOOM - 4}/{FIRST[0] >> 4}/{FIRST[1] >> 4}.png"
        assert client.get(far).status_code == 204
        job = client.post("/api/jobs", json={"scene": scene, "model": "unet"}).json()["id"]
        again = client.post("/api/jobs", json={"scene": scene, "model": "unet"}).json()["id"]
        assert again == job
        said = wait_for(client, job, "done", "failed")
        assert said["state"] == "done", said["error"]
        assert said["tiles_done"] == said["tiles"] > 0
        tif = client.get(f"/api/jobs/{job}/map.tif")
        assert 'filename="city_unet.tif"' in tif.headers["content-disposition"]
        (tmp_path / "got.tif").write_bytes(tif.content)
        assert_array_equal(read_raster(tmp_path / "got.tif"), read_raster(tmp_path / "m.tif"))
        picture = decoded(client.get(f"/api/jobs/{job}/map.png").content)
        assert_array_equal(picture[..., 3] == 255, mask)
        pixels = read_raster(tmp_path / "m.tif").transpose(1, 2, 0)
        assert_array_equal(picture[mask][:, :3], pixels[mask])
        # From now on it serves all zooms, with the same pixels.
        assert client.get(far).status_code == 200
        whole = mosaic(client, "unet", 300, 400, scene=scene)
        assert_array_equal(whole[mask][:, :3], pixels[mask])
        assert client.get(f"/api/scenes/{scene}/maps/unet").json()["job"] == job
        assert client.get(f"/api/jobs/{job}/map.exe").status_code == 404
        assert client.delete(f"/api/jobs/{job}").status_code == 204
        assert client.get(f"/api/jobs/{job}").status_code == 404
        assert list(service.folder.iterdir()) == []


def test_pictures_without_a_place_are_rendered_too_and_stay_transparent(serve):
    picture = noise(70, 90, bands=4).transpose(1, 2, 0).copy()
    picture[..., 3] = 255
    picture[10:30, 20:50, 3] = 0
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    with serve() as (_, client):
        scene = upload(client, stream.getvalue()).json()["id"]
        job = client.post("/api/jobs", json={"scene": scene, "model": "identity"}).json()["id"]
        said = wait_for(client, job, "done", "failed")
        assert said["state"] == "done", said["error"]
        got = decoded(client.get(f"/api/jobs/{job}/map.png").content)
    assert_array_equal(got[..., 3], picture[..., 3])
    shown = picture[..., 3] > 0
    assert_array_equal(got[shown], picture[shown])


def test_jobs_are_bounded_and_can_be_cancelled(serve, monkeypatch):
    with serve(jobs_waiting=1, jobs_kept=2) as (service, client):
        go, run_batch = threading.Event(), service.generator.run_batch
        held = lambda *batch: go.wait(60) and run_batch(*batch)  # noqa: E731
        monkeypatch.setattr(service.generator, "run_batch", held)
        ids = [upload(client, png(400 + i, 400), f"{i}.png").json()["id"] for i in range(3)]

        def start(scene):
            return client.post("/api/jobs", json={"scene": scene, "model": "identity"})

        first = start(ids[0]).json()["id"]
        wait_for(client, first, "running")
        second = start(ids[1])
        full = start(ids[2])
        assert (second.status_code, full.status_code) == (200, 503)
        assert int(full.headers["Retry-After"]) > 0
        for job in (second.json()["id"], first):
            assert client.delete(f"/api/jobs/{job}").status_code == 204
        go.set()
        for _ in range(1200):
            if not client.get("/api/jobs").json():
                break
            time.sleep(0.05)
        assert client.get("/api/jobs").json() == []
        assert not list(service.folder.glob("job-*"))


@pytest.mark.parametrize("when", ["opened", "painted"])
def test_too_many_open_files_are_said_without_our_paths(tmp_path, serve, monkeypatch, when):
    def none_left(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    source = aligned(tmp_path / "town.tif", 300, 300)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0].id
        monkeypatch.setattr(opening, "check_directories", none_left)
        if when == "opened":
            answer = upload(client, source.read_bytes(), "town.tif")
        else:
            answer = client.get(f"/xyz/{scene}/identity/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("town.tif: Too many open files; ")


def test_a_source_that_is_gone_is_said(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", 300, 300)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0].id
        source.unlink()
        answer = client.get(f"/xyz/{scene}/unet/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("city.tif: no such file")


def test_no_map_is_made_of_a_source_that_has_changed(tmp_path, serve):
    source = aligned(tmp_path / "city.tif", 300, 300)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0].id
        source.unlink()
        aligned(source, 400, 500)
        job = client.post("/api/jobs", json={"scene": scene, "model": "identity"}).json()["id"]
        said = wait_for(client, job, "done", "failed")
        again = "city.tif: changed since it was opened; open it again, or start the server again"
        assert (said["state"], said["error"]) == ("failed", again)
        answer = client.get(f"/api/scenes/{scene}/maps/identity")
        assert (answer.status_code, answer.json()) == (422, {"error": again})


@pytest.mark.parametrize("layer", ["source", "unet"])
def test_a_source_that_goes_is_said_without_its_folder(tmp_path, serve, layer):
    source = aligned(tmp_path / "city.tif", 300, 300)
    with serve(source) as (service, client):
        scene = service.scenes.all()[0]
        assert client.get(f"/api/scenes/{scene.id}/maps/unet").status_code == 200
        scene.picture.close()  # the file that was open
        source.unlink()
        answer = client.get(f"/xyz/{scene.id}/{layer}/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png")
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("city.tif: no such file")


def test_too_many_requests_are_asked_to_come_again(tmp_path, serve, monkeypatch):
    source = aligned(tmp_path / "city.tif", 256, 256)
    with serve(source, waiting=1) as (service, client), ThreadPoolExecutor(8) as pool:
        go, tile = threading.Event(), service.tiles.tile
        monkeypatch.setattr(service.tiles, "tile", lambda *place: go.wait(60) and tile(*place))
        path = f"/{ZOOM}/{FIRST[0]}/{FIRST[1]}.png"
        waiting = [pool.submit(client.get, path) for _ in range(8)]
        for done in itertools.islice(as_completed(waiting), 7):  # all but the one that is held
            assert done.result().headers["Retry-After"] == "1"
        go.set()
        assert sorted(answer.result().status_code for answer in waiting) == [200, *[503] * 7]
