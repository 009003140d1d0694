from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.ports import held_ports
from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.errors import DeviceError
from tilemapper.networks.patchgan import Verdict
from tilemapper.training import parallel
from tilemapper.training import run as training
from tilemapper.training.losses import gradient_penalty
from tilemapper.training.parallel import (
    Processes,
    SyncedBatchNorm,
    own_device,
    synchronised,
    unsynchronised,
)
from tilemapper.training.recording import read_events
from tilemapper.training.run import train

ROOT = Path(__file__).parents[2]


def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path):
    data = write_pairs(tmp_path / "pairs", 12)
    settings = {
        **TINY,
        "trainer.steps": "4",
        "losses.l1": "10.0",
        "trainer.learning_rate": "1e-3",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    work = ["-m", "tilemapper", "train", str(data), "--out", str(tmp_path / "two")]
    work += ["--threads", "1", *(w for k, v in settings.items() for w in ("--set", f"{k}={v}"))]
    with held_ports(1) as (port,):
        done = subprocess.run(
            [*command, "--master-addr", "127.0.0.1", "--master-port", str(port), *work],
            cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") == 1  # one of the two speaks
    train(data, tmp_path / "one", settings={**settings, "trainer.batch": "4"})
    two, one = (
        [e for e in read_events(tmp_path / run / "metrics.jsonl") if e["kind"] == "train"]
        for run in ("two", "one")
    )
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        for name in ("cross_entropy", "l1", "discriminator", "gan"):
            # float32 sums in another order, and the steps in between make the difference grow;
            # a split that does not synchronise differs in the first digit.
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-3)
    final = [torch_weights(tmp_path / run) for run in ("two", "one")]
    # Adam turns rounding of a gradient near 0 into whole steps for single weights; most agree.
    moved = [(final[0][n] - final[1][n]).abs().float().flatten() for n in final[0]]
    assert float(torch.cat(moved).mean()) < 1e-4  # four steps of 1e-3 were made


def torch_weights(run: Path) -> dict[str, torch.Tensor]:
    from tilemapper.training.checkpoint import read_checkpoint

    return read_checkpoint(run / "checkpoints" / "last.ckpt")["modules"]["generator"]


def test_a_synchronised_norm_sends_no_number_to_the_device(monkeypatch):
    """Sending one waits for all that the device has to do, in every norm of every step."""
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(parallel.dist, "all_reduce", lambda values: None)
    norm, x = SyncedBatchNorm(4), torch.randn(2, 4, 8, 8)
    with Watch():
        norm(x)
    assert "aten::sum" in made
    assert not [name for name in made if name.startswith("aten::lift")]


def test_the_gradient_penalty_of_two_processes_is_that_of_the_double_batch(monkeypatch):
    """Its gradient goes through that of a norm, and what the processes tell each other there."""
    # The other process has the same batch; what it sends is no operation that torch follows.
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda values: values.data.mul_(2))
    torch.manual_seed(0)
    real, fake, mix = torch.randn(3, 3, 8, 8), torch.randn(3, 3, 8, 8), torch.rand(3)
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Conv2d(4, 1, 3))
    two = synchronised(copy.deepcopy(one), Processes(rank=0, world=2))
    for network, times in ((one, 2), (two, 1)):
        batch = (torch.cat([v] * times) for v in (real, fake, mix))
        gradient_penalty(lambda x, judge=network: [Verdict(judge(x), ())], *batch).backward()
    for expected, found in zip(one.parameters(), two.parameters(), strict=True):
        if expected.grad is not None:
            assert torch.allclose(found.grad, expected.grad, rtol=1e-3, atol=1e-6)


def test_synchronising_keeps_weights_and_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network(torch.randn(2, 3, 8, 8))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    assert synchronised(network, Processes()) is network
    synced = synchronised(network, Processes(rank=0, world=2))
    assert isinstance(synced[1], SyncedBatchNorm)
    assert all(torch.equal(before[n], t) for n, t in synced.state_dict().items())


def test_a_norm_that_is_no_longer_synchronised_stays_on_its_device():
    """A run on several GPUs ended with its model half on the host, when it was exported."""
    network = nn.Sequential(SyncedBatchNorm(4)).to("meta")
    assert {t.device.type for t in unsynchronised(network).state_dict().values()} == {"meta"}


def test_statistics_of_a_norm_are_never_below_what_a_variance_can_be(monkeypatch):
    """Of values far from 0 that hardly vary the mean square is smaller than the squared mean."""
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda _: None)
    norm = SyncedBatchNorm(64)
    assert norm.running_var is not None
    for _ in range(20):
        norm(1000 + torch.arange(64.0).view(1, 64, 1, 1) / 7 + torch.zeros(4, 64, 8, 8))
    assert float(norm.running_var.min()) >= 0


@pytest.mark.parametrize(
    ("device", "processes", "own"),
    [
        ("cuda:0", Processes(3, 4, 1), "cuda:1"),
        ("cuda:1", Processes(), "cuda:1"),  # alone, where the user says
        ("cpu", Processes(3, 4, 3), "cpu"),
    ],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, device, processes, own):
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert own_device(torch.device(device), processes) == torch.device(own)
    assert current == ([torch.device(own)] if own == "cuda:1" and processes.world > 1 else [])


def test_more_processes_than_gpus_are_refused_and_leave_their_group(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(training, "join_processes", lambda device: Processes(2, 4, 2))
    monkeypatch.setattr(training, "leave_processes", left.append)
    with pytest.raises(DeviceError, match="process 3 of this machine, 2 CUDA device"):
        train(write_pairs(tmp_path / "pairs", 4), tmp_path / "run", settings=TINY, device="cuda")
    assert left == [Processes(2, 4, 2)]
