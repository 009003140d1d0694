import pytest
import torch

from tilemapper.networks import processor
from tilemapper.networks.processor import capabilities, gains_by_bf16

XEON, EPYC = {"cpu_name": "Intel Xeon"}, {"cpu_name": "AMD EPYC"}


@pytest.mark.parametrize(
    ("native", "able", "gains"),
    [
        (True, XEON | {"avx512_bf16": True, "amx_bf16": True}, True),
        (True, XEON | {"avx512_bf16": True, "amx_bf16": False}, False),
        (True, EPYC | {"avx512_bf16": True}, True),
        (True, {"cpu_name": None, "bf16": True}, True),
        # held to less by ONEDNN_MAX_CPU_ISA, or with nothing of the kind
        (False, XEON | {"avx512_bf16": True, "amx_bf16": True}, False),
        (False, EPYC, False),
    ],
)
def test_bf16_is_taken_where_it_is_faster_not_wherever_it_is_native(
    monkeypatch, native, able, gains
):
    monkeypatch.setattr(processor, "capabilities", lambda: able)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    assert gains_by_bf16() is gains


def test_a_torch_that_was_built_without_onednn_has_no_bf16(monkeypatch):
    """Nor is there anything to ask: train and info work with it too."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not gains_by_bf16()


def test_a_torch_without_capabilities_leaves_the_word_to_linux(monkeypatch, tmp_path):
    """The first core's lines, by their whole words: avx512_bf16 is neither AMX nor ARM's."""
    told = tmp_path / "cpuinfo"
    core = "processor : {}\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu {}\nbugs :\n\n"
    told.write_text(core.format(0, "avx512_bf16") + core.format(1, "avx512_bf16 amx_bf16"))
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(processor, "Path", lambda _path: told)
    able = capabilities()
    assert able["cpu_name"] == "Intel(R) Xeon(R) Processor"
    assert able["avx512_bf16"] and not able.get("amx_bf16") and not able.get("bf16")
    told.unlink()
    assert capabilities() == {"cpu_name": None}
