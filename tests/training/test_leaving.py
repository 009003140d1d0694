"""A stop that is asked for at any moment: nothing long goes on after it, and nothing is lost."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.ports import held_ports
from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.networks.model import open_model
from tilemapper.training import heldout
from tilemapper.training.checkpoint import read_checkpoint
from tilemapper.training.feed import Feed
from tilemapper.training.heldout import HeldOut
from tilemapper.training.metrics import measure_maps
from tilemapper.training.pixels import Pixels
from tilemapper.training.recording import read_events
from tilemapper.training.run import train
from tilemapper.training.task import Limits, Stopped

PAIRS, HELD_OUT = 6, 2
SETTINGS = {
    **TINY,
    "data.held_out": "0.34",
    "trainer.steps": "3",
    "trainer.evaluate_every": "2",
    "trainer.calibration_batches": "2",
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", PAIRS)


@pytest.fixture(autouse=True)
def no_plots(monkeypatch) -> None:
    """To make one takes longer than a step."""
    monkeypatch.setattr("tilemapper.training.lossplot.loss_plot", lambda _events: b"")


class Stop:
    """Asks for a stop from the ``at``-th time on that it is asked, and never where it is 0."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.asked = at, 0

    def __call__(self) -> bool:
        self.asked += 1
        return bool(self.at) and self.asked >= self.at


def held_out(run: Path) -> list[dict]:
    return [e for e in read_events(run / "metrics.jsonl") if e["kind"] == "held_out"]


def test_a_stop_at_any_moment_loses_nothing(pairs, tmp_path):
    never = Stop()
    straight = train(pairs, tmp_path / "straight", preset="fast", settings=SETTINGS, stop=never)
    weights = open_model(straight.model).card.weights_sha256
    # All pairs are looked at twice, once for their sizes. Then every third place is tried:
    # in steps, when measuring, and at each part of the export.
    first_step = 2 * PAIRS + 1
    assert never.asked > first_step + 10
    for at in range(first_step, never.asked + 1, 3):
        run = tmp_path / str(at)
        stopped = train(pairs, run, preset="fast", settings=SETTINGS, stop=Stop(at))
        assert stopped.model is None
        assert train(pairs, run, resume=True).figures == straight.figures
        assert open_model(run / "model").card.weights_sha256 == weights
        assert held_out(run) == held_out(tmp_path / "straight")


@pytest.mark.parametrize("at", [1, PAIRS, 2 * PAIRS])
def test_a_stop_while_pairs_are_read_ends_there(pairs, tmp_path, at):
    stop = Stop(at)
    result = train(pairs, tmp_path / "run", preset="fast", settings=SETTINGS, stop=stop)
    assert (result.step, result.finished, result.model) == (0, False, None)
    assert stop.asked == at
    assert not (tmp_path / "run" / "config.toml").exists()
    assert train(pairs, tmp_path / "run", preset="fast", settings=SETTINGS).finished


def test_a_measurement_that_is_broken_off_twice_is_made_all_the_same(pairs, tmp_path):
    straight = train(pairs, tmp_path / "straight", preset="fast", settings=SETTINGS)
    run, measuring = tmp_path / "run", 2 * PAIRS + 2  # after the second step
    assert train(pairs, run, preset="fast", settings=SETTINGS, stop=Stop(measuring)).step == 2
    assert train(pairs, run, resume=True, stop=Stop(2 * PAIRS + 1)).step == 2
    assert train(pairs, run, resume=True, stop=Stop(1)).step == 2
    assert train(pairs, run, resume=True).figures == straight.figures
    assert held_out(run) == held_out(tmp_path / "straight")


def test_all_processes_leave_where_one_of_them_is_stopped(pairs, forks, tmp_path):
    """Only the first reads held-out pairs and measures; the others wait for it meanwhile."""
    moments = {
        "held-out pairs": (0, 2 * PAIRS - 1),
        "pairs": (1, 3),
        "figures": (0, 2 * PAIRS + 2),
        "steps": (1, 2 * (PAIRS - HELD_OUT) + 1),
    }
    program = f"""
        import os, sys
        from tests.training.test_leaving import SETTINGS, Stop
        from tilemapper.training.run import train
        for port, (name, (rank, at)) in zip(sys.argv[1:], {moments!r}.items()):
            os.environ["MASTER_PORT"] = port
            stop = Stop(at if os.environ["RANK"] == str(rank) else 0)
            out = {str(tmp_path)!r} + "/" + name
            result = train({str(pairs)!r}, out, settings=SETTINGS, stop=stop)
            print(name, result.step, result.stopped, result.model)
        # To import torch's compiler takes as long as torch itself.
        print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
    """
    around = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    with held_ports(len(moments)) as ports:
        processes = [
            forks.start(
                *ports,
                cwd=tmp_path,
                env={**around, "RANK": str(rank)},
                preload=("tests.training.test_leaving",),
                code=textwrap.dedent(program),
            )
            for rank in range(2)
        ]
        # One may wait for the other, in vain: the second gets little time of its own.
        ends = [
            process.wait(limit_s) for process, limit_s in zip(processes, (600, 60), strict=True)
        ]
    steps = {"held-out pairs": 0, "pairs": 0, "figures": 2, "steps": 1}
    wanted = "".join(f"{name} {at} True None\n" for name, at in steps.items()) + "[]\n"
    assert [end.stdout for end in ends] == [wanted] * 2, ends
    assert {p.parent.name for p in tmp_path.glob("*/config.toml")} == {"figures", "steps"}


@pytest.mark.parametrize(
    ("asked", "painted", "judged"), [(1, 0, 0), (3, 2, 0), (4, 3, 0), (5, 3, 1)]
)
def test_a_stop_ends_a_measurement_within_eight_images(monkeypatch, asked, painted, judged):
    images, side = 20, 16
    table = torch.full((images,), side)
    pixels = torch.zeros(images * side**2, 3, dtype=torch.uint8)
    store = Pixels(pixels, pixels, torch.arange(images) * side**2, table, table, side)
    done = {"painted": 0, "judged": 0}

    def paint(y):
        done["painted"] += 1
        return y

    def judge(*given, **kw):
        done["judged"] += 1
        return measure_maps(*given, **kw)

    monkeypatch.setattr(heldout, "measure_maps", judge)
    held, check = HeldOut(store, side, paint, legend=None), Limits(stop=Stop(asked)).check
    with pytest.raises(Stopped):
        held.measure(nn.Identity(), torch.device("cpu"), check=check)
    assert done == {"painted": painted, "judged": judged}


def test_nothing_is_computed_any_more_after_a_stop(pairs, tmp_path, monkeypatch):
    settings = {**SETTINGS, "trainer.precise_bn_batches": "30", "trainer.calibration_batches": "30"}
    made = itertools.count(1)
    plain = Feed.make
    numbers = []

    def counted(self, number):
        numbers.append(next(made))
        return plain(self, number)

    monkeypatch.setattr(Feed, "make", counted)
    train(pairs, tmp_path / "a", preset="fast", settings=settings, stop=lambda: len(numbers) > 10)
    assert len(numbers) == 11
    step = read_checkpoint(tmp_path / "a" / "checkpoints" / "last.ckpt")["step"]
    assert step == 3
