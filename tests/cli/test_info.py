import json

import pytest
import torch
from click.testing import CliRunner

from tilemapper.cli.info import DRIVERS, info
from tilemapper.cli.main import cli
from tilemapper.errors import DeviceError
from tilemapper.training.assembly import choose_device


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


OLD = "The NVIDIA driver on your system is too old (found version 11040).\nPlease update"


@pytest.mark.parametrize(
    ("built_for", "said"), [(None, "torch is built without CUDA"), ("13.0", OLD)]
)
def test_a_machine_whose_gpu_cannot_be_used_is_told_why(monkeypatch, built_for, said):
    """torch counts devices by another way than it uses them, and finds one all the same."""

    def refuse(*_device):
        raise RuntimeError(OLD)

    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if built_for else 0)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.cuda, "get_device_properties", refuse)
    result = CliRunner().invoke(info)
    assert f"cuda: no device ({' '.join(said.split())})" in result.stdout
    with pytest.raises(DeviceError, match=r"--device cuda: not found here, 0 CUDA device\(s\) are"):
        choose_device("cuda")


def test_native_bf16_is_said_only_where_the_processor_has_it():
    native = json.loads(CliRunner().invoke(info, ["--json"]).stdout)["cpu"]["bf16"]
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if flags.get("architecture") == "x86_64":
        assert ("AVX512-BF16" in native) == flags["avx512_bf16"]
        assert ("AMX" in native) == flags["amx_bf16"]


@pytest.mark.parametrize(("gains", "precision"), [(True, "bf16"), (False, "fp32")])
def test_info_says_which_precision_auto_is(monkeypatch, gains, precision):
    monkeypatch.setattr("tilemapper.networks.processor.gains_by_bf16", lambda: gains)
    assert f", precision auto is {precision}\n" in CliRunner().invoke(info).stdout


def test_an_uninstalled_package_is_named_as_such(monkeypatch):
    monkeypatch.setattr("tilemapper.cli.info.OPTIONAL_PACKAGES", ("no-such-package",))
    assert "no-such-package (not installed)" in CliRunner().invoke(info).stdout


def test_variables_are_named_after_flags_not_after_our_parameters(monkeypatch):
    monkeypatch.setenv("TILEMAPPER_INFO_JSON", "1")
    assert json.loads(CliRunner().invoke(cli, ["info"]).stdout)["versions"]
