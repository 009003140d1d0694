"""Which schedulers may be used: loopback, TLS, or what the user takes the risk for."""

from __future__ import annotations

import json

import pytest

from tilemapper.errors import OptionError
from tilemapper.render.address import scheduler_address


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786", "tls://192.0.2.7:8786"],
)
def test_loopback_and_tls_are_taken(address):
    assert scheduler_address(address, None, insecure=False) == address


@pytest.mark.parametrize("address", ["tcp://192.0.2.7:8786", "tcp://0.0.0.0:8786"])
def test_another_machine_without_tls_is_refused_unless_insecure(address):
    with pytest.raises(OptionError, match="without TLS"):
        scheduler_address(address, None, insecure=False)
    assert scheduler_address(address, None, insecure=True) == address


@pytest.mark.parametrize("address", ["http://127.0.0.1:8786", "inproc://1", "ucx://192.0.2.7:1"])
def test_other_protocols_are_refused(address):
    with pytest.raises(OptionError, match="tcp:// or tls://"):
        scheduler_address(address, None, insecure=True)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1",
        "tls://192.0.2.7",
        "tcp://",
        "tcp://127.0.0.1:port",
        "tls://h:0",
        "tcp://:1",
    ],
)
def test_an_address_without_host_or_port_is_a_matter_of_usage(address):
    with pytest.raises(OptionError, match=r"host and port are needed, such as t\w\w://HOST:8786"):
        scheduler_address(address, None, insecure=True)


def test_a_scheduler_file_names_the_address_and_gets_no_exception(tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": "tcp://127.0.0.1:4242", "workers": {}}))
    assert scheduler_address(str(file), None, insecure=False) == "tcp://127.0.0.1:4242"
    file.write_text(json.dumps({"address": "tcp://192.0.2.7:4242"}))
    with pytest.raises(OptionError, match="without TLS"):
        scheduler_address(str(file), None, insecure=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_what_is_no_scheduler_file_is_refused(tmp_path, text):
    file = tmp_path / "scheduler.json"
    file.write_text(text)
    with pytest.raises(OptionError, match="neither an address"):
        scheduler_address(str(file), None, insecure=False)
    with pytest.raises(OptionError, match="neither an address"):
        scheduler_address(str(tmp_path / "missing.json"), None, insecure=False)


def test_the_word_dask_is_the_address_in_dasks_configuration():
    assert scheduler_address("dask", "tls://192.0.2.7:1", insecure=False) == "tls://192.0.2.7:1"
    with pytest.raises(OptionError, match="names no scheduler-address"):
        scheduler_address("dask", None, insecure=False)
    with pytest.raises(OptionError, match="without TLS"):
        scheduler_address("dask", "tcp://192.0.2.7:1", insecure=False)
