import json

import torch
from click.testing import CliRunner

from tilemapper.cli.info import DRIVERS, info
from tilemapper.cli.main import cli


def test_info_names_versions_devices_drivers_and_models():
    result = CliRunner().invoke(info)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for beginning in ("tilemapper ", "torch ", "rasterio ", "cpu: ", "cuda", "gdal "):
        assert any(line.startswith(beginning) for line in lines), beginning


def test_info_as_json_is_one_object_that_agrees_with_the_libraries():
    result = CliRunner().invoke(info, ["--json"])
    found = json.loads(result.stdout)
    # A build for CUDA may call itself 2.13.0+cu130 and its package 2.13.0.
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert len(found["cuda"]) == torch.cuda.device_count()
    assert {*found["gdal"]["drivers"], *found["gdal"]["missing"]} == set(DRIVERS)
    assert "GTiff" in found["gdal"]["drivers"]


def test_native_bf16_is_said_only_where_the_processor_has_it():
    native = json.loads(CliRunner().invoke(info, ["--json"]).stdout)["cpu"]["bf16"]
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if flags.get("architecture") == "x86_64":
        assert ("AVX512-BF16" in native) == flags["avx512_bf16"]
        assert ("AMX" in native) == flags["amx_bf16"]


def test_an_uninstalled_package_is_named_as_such(monkeypatch):
    monkeypatch.setattr("tilemapper.cli.info.OPTIONAL_PACKAGES", ("no-such-package",))
    assert "no-such-package (not installed)" in CliRunner().invoke(info).stdout


def test_variables_are_named_after_flags_not_after_our_parameters(monkeypatch):
    monkeypatch.setenv("TILEMAPPER_INFO_JSON", "1")
    assert json.loads(CliRunner().invoke(cli, ["info"]).stdout)["versions"]
