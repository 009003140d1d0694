from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.training.parallel import Processes, SyncedBatchNorm, synchronised
from tilemapper.training.recording import read_events
from tilemapper.training.run import train

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path):
    data = write_pairs(tmp_path / "pairs", 12)
    settings = {
        **TINY,
        "trainer.steps": "4",
        "losses.l1": "10.0",
        "trainer.learning_rate": "1e-3",
    }
    arguments = [str(SCRIPT), str(data), str(tmp_path / "two"), json.dumps(settings)]
    # What torchrun puts into the environment, without its half-minute of agents.
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=SCRIPT.parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [child.communicate(timeout=200)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], [e[-900:] for e in errors]
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
    for name in final[0]:
        assert torch.allclose(final[0][name], final[1][name], atol=2e-4), name


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def torch_weights(run: Path) -> dict[str, torch.Tensor]:
    from tilemapper.training.checkpoint import read_checkpoint

    return read_checkpoint(run / "checkpoints" / "last.ckpt")["modules"]["generator"]


def test_synchronising_keeps_weights_and_statistics():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network(torch.randn(2, 3, 8, 8))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    assert synchronised(network, Processes()) is network
    synced = synchronised(network, Processes(rank=0, world=2))
    assert isinstance(synced[1], SyncedBatchNorm)
    assert all(torch.equal(before[n], t) for n, t in synced.state_dict().items())
