"""Bodies of requests: numbers that are none, and bodies without an end."""

from __future__ import annotations

import pytest

from tests.serve.test_app import png, upload

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_numbers_that_are_none_are_refused(serve, number):
    with serve() as (_, client):
        body = f'{{"folder": {number}, "path": "a.tif"}}'
        answer = client.post("/api/scenes", content=body, headers=JSON)
        assert answer.status_code == 422
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"].startswith("body.folder: ")


@pytest.mark.parametrize("door", ["/api/scenes", "/api/jobs"])
def test_a_body_that_goes_on_and_on_is_not_taken_into_memory(serve, door):
    def body():
        yield b'{"folder": 0, "scene": "'
        for _ in range(100):
            yield b"a" * 4096
        yield b'"}'

    with serve() as (_, client):
        assert client.post(door, content=body(), headers=JSON).status_code == 413
        assert upload(client, png(300, 300)).status_code == 200  # these may be long
