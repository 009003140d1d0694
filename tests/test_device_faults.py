"""A GPU that fails, lacks memory, or is unknown to torch: one line, and what was done is kept."""

from __future__ import annotations

import click
import pytest
import torch

from tests.conftest import noise, write_raster
from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.cli.main import run
from tilemapper.errors import DeviceError, DeviceLostError, OptionError, device_fault
from tilemapper.render import blocks, devices
from tilemapper.render.devices import has_begun, is_broken, is_gone, naming
from tilemapper.render.render import render
from tilemapper.training import pix2pix
from tilemapper.training.run import train

# As torch says it, with its advice below.
FAILED = (
    "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
)
# Of too little memory, and of a GPU that this build of torch does not know.
NO_ENGINE = "GET was unable to find an engine to execute this computation"
TOO_OLD = "CUDA error: no kernel image is available for execution on the device\nCompile with"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RuntimeError(FAILED), DeviceLostError, "cuda:1: failed (CUDA error: unspecified launch"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), DeviceLostError, "nvidia-smi"),
        (RuntimeError(TOO_OLD), DeviceError, "this build of torch has no code for it"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), DeviceError, "not enough memory"),
        (RuntimeError("CUDA error: out of memory"), DeviceError, "not enough memory"),
        (RuntimeError("CUDA driver error: unknown error"), DeviceLostError, "nvidia-smi"),
        (RuntimeError("No CUDA GPUs are available"), DeviceLostError, "nvidia-smi"),
        (RuntimeError("CUDA unknown error - this may be due to"), DeviceLostError, "nvidia-smi"),
        (RuntimeError("Triton Error [CUDA]: device-side assert"), DeviceLostError, "nvidia-smi"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), DeviceError, "not enough memory"),
        (RuntimeError(NO_ENGINE), DeviceError, "a build of torch that has code for this GPU"),
    ],
)
def test_what_a_gpu_says_is_told_in_a_line_that_names_it(error, kind, said):
    fault = device_fault(error, "cuda:1")
    assert type(fault) is kind
    assert str(fault).startswith("cuda:1: ")
    assert said in str(fault)
    assert "\n" not in str(fault)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OptionError("x"), ValueError("CUDA error"), OSError()]
)
def test_what_has_nothing_to_do_with_a_gpu_stays_what_it_is(error):
    assert device_fault(error) is None
    with pytest.raises(type(error)) as raised, naming("cuda:0"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("said", "code", "line"),
    [
        (FAILED, 75, "error: the GPU: failed (CUDA error: unspecified launch failure); look at"),
        (TOO_OLD, 1, "error: the GPU: this build of torch has no code for it; install one"),
    ],
)
def test_the_command_line_calls_a_gpu_that_fails_no_defect(capsys, said, code, line):
    @click.command()
    def command() -> None:
        raise RuntimeError(said)

    assert run(command, []) == code
    complained = capsys.readouterr().err
    assert complained.startswith(line)
    assert "defect" not in complained


def test_a_render_whose_gpu_fails_goes_on_from_the_blocks_that_stand(models, tmp_path, monkeypatch):
    city, target = write_raster(tmp_path / "city.tif", noise(600, 700)), tmp_path / "map.tif"
    options = {"block": 512, "device": "cpu"}
    expected = render(city, tmp_path / "expected.tif", models / "identity", **options)
    usual, begun = blocks.render_block, []

    def failing(plan, block, *work):
        begun.append(block)
        if len(begun) == 3:
            raise RuntimeError(FAILED)
        return usual(plan, block, *work)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "render_block", failing)
        with pytest.raises(DeviceLostError, match="cpu: failed") as raised:
            render(city, target, models / "identity", **options)
    assert raised.value.exit_code == 75
    result = render(city, target, models / "identity", **options)
    assert (result.blocks_resumed, result.blocks) == (2, expected.blocks)
    assert target.read_bytes() == (tmp_path / "expected.tif").read_bytes()


def test_a_gpu_is_broken_when_it_cannot_even_be_waited_for(monkeypatch):
    def fail(_device):
        raise RuntimeError(FAILED)

    assert not is_broken("cuda:0")  # nothing of this process runs on one
    monkeypatch.setattr(devices.torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "synchronize", lambda _device: None)
    assert not is_broken("cuda:0")
    monkeypatch.setattr(devices.torch.cuda, "synchronize", fail)
    assert is_broken("cuda:0")
    assert is_broken()
    assert not is_broken("cpu")


def test_a_gpu_is_gone_when_nothing_can_be_begun_on_it(monkeypatch):
    def fail(_device):
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda _device: (1, 1))
    assert not is_gone("cuda:0")
    assert is_gone("cuda:1")
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", fail)
    assert is_gone("cuda:0")


def test_a_process_has_begun_on_a_gpu_once_it_had_memory_there(monkeypatch):
    assert not has_begun("cuda:0")
    monkeypatch.setattr(devices.torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "max_memory_reserved", {"cuda:0": 0, "cuda:1": 9}.get)
    assert not has_begun("cuda:0")
    assert has_begun("cuda:1")


def test_a_run_whose_gpu_fails_says_how_it_goes_on(tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "pairs", 4)

    def failing(self, batch, step, done):
        raise RuntimeError(FAILED)

    monkeypatch.setattr(pix2pix.Pix2Pix, "step", failing)
    with pytest.raises(DeviceLostError, match=r"cpu: failed \(CUDA error.*go on with --resume"):
        train(pairs, tmp_path / "run", settings=TINY | {"trainer.steps": "2"}, device="cpu")
