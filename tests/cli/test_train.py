from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.cli.main import cli, run
from tilemapper.errors import TrainingError
from tilemapper.training.checkpoint import read_checkpoint
from tilemapper.training.run import RunResult

TINY_SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", 8)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch) -> None:
    """Loss plots take longer than these runs; tests/training/test_run.py has them."""
    monkeypatch.setattr("tilemapper.training.lossplot.loss_plot", lambda _events: b"")


def train(*arguments: object, settings: tuple[str, ...] = ()) -> int:
    # trainer.steps and the like come last: they replace what TINY says.
    extra = [word for setting in settings for word in ("--set", setting)]
    return run(cli, ["train", *map(str, arguments), *TINY_SETTINGS, *extra])


def test_a_run_ends_with_one_line_on_stdout_and_nothing_on_stderr(pairs, tmp_path, capsys):
    code = train(pairs, "--out", tmp_path / "run", settings=("steps=2",))
    out, err = capsys.readouterr()
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert "step 2, finished" in out and str(tmp_path / "run" / "model") in out


def test_json_prints_one_object(pairs, tmp_path, capsys):
    code = train(
        pairs, "--out", tmp_path / "run", "--json", "--seed", 5, "--direction", "AtoB",
        settings=("steps=1",),
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert (code, result["step"], result["finished"]) == (0, 1, True)
    assert "seed = 5" in (tmp_path / "run" / "config.toml").read_text()


def test_several_values_are_a_sweep_that_ends_with_one_table(pairs, tmp_path, capsys):
    code = train(pairs, "--out", tmp_path / "sweep", settings=("steps=1,2", "losses.l1=0.0,1.0"))
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert len(lines) == 5 and lines[0].split()[:2] == ["run", "step"]
    assert lines[4].split()[:2] == ["steps=2,l1=1.0", "2"]
    assert (tmp_path / "sweep" / "steps=2,l1=1.0" / "model" / "model.toml").exists()


def test_runs_of_a_sweep_whose_values_differ_in_a_slash_alone_have_folders_of_their_own(
    pairs, tmp_path, capsys
):
    out = tmp_path / "sweep"
    assert train(pairs, "--out", out, settings=("steps=1", "origin=a/b,a_b,a%2Fb")) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["origin=a/b", "origin=a_b", "origin=a%2Fb"]
    folders = {folder.name for folder in out.iterdir() if folder.is_dir()}
    assert folders == {"origin=a%2Fb", "origin=a_b", "origin=a%252Fb"}


def test_a_sweep_with_a_value_that_is_none_is_refused_before_its_first_run(pairs, tmp_path, capsys):
    out = tmp_path / "sweep"
    wrong = {
        ("steps=1", "losses.l1=0.0,foo"): "losses.l1 is 'foo'",
        ("steps=1,0",): "no length",
        ("steps=1", "init=,nosuch"): "nosuch: no model of this name",
    }
    for settings, words in wrong.items():
        assert train(pairs, "--out", out, settings=settings) == 1
        assert words in capsys.readouterr().err
        assert not out.exists()


def test_a_sweep_of_which_a_run_fails_shows_those_that_are_done(
    pairs, tmp_path, capsys, monkeypatch
):
    from tilemapper.api import train as api

    usual = api.train_run

    def fails(data, out, **options):
        if "l1=2.0" in str(out):
            raise TrainingError("step 1: loss l1 is nan; lower it")
        return usual(data, out, **options)

    monkeypatch.setattr(api, "train_run", fails)
    out = tmp_path / "sweep"
    assert train(pairs, "--out", out, settings=("steps=1", "losses.l1=1.0,2.0")) == 1
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["run", "l1=1.0"]
    assert said.err == "error: step 1: loss l1 is nan; lower it\n"
    assert "l1=1.0" in (out / "report.html").read_text()


def test_a_sweep_that_was_stopped_goes_on_with_the_runs_that_never_began(pairs, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert train(pairs, "--out", out / "steps=1", settings=("steps=1",)) == 0
    assert train(pairs, "--out", out, "--resume", settings=("steps=1,2",)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-2:]] == [["steps=1", "1"], ["steps=2", "2"]]
    assert (out / "steps=2" / "model" / "model.toml").exists()


def test_a_terminal_sees_losses_images_a_second_and_the_share_of_waiting(
    pairs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert train(pairs, "--out", tmp_path / "run", settings=("steps=3", "losses.l1=1.0")) == 0
    bar = capsys.readouterr().err
    assert re.search(r"step 3 .*\bl1 \d+\.\d{3} .*\d images/s waiting \d+\.\d%", bar), bar[-300:]
    assert "100%" in bar


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--preset", "fats"], 2, "did you mean fast"),
        (["--set", "learing_rate=1"], 2, "did you mean learning_rate"),
        (["--set", "learning_rate"], 2, "no key=value"),
        (["--set", "batch=8", "--set", "trainer.batch=4,2"], 2, "trainer.batch is set already"),
        (["--set", "right_angles=False"], 1, "is 'False': write false, in lower case; correct it"),
        (["--set", "batch=0"], 1, "trainer.batch is '0'"),
        (["--config", "none.toml"], 1, "none.toml: not found"),
        (["--resume"], 1, "no run to resume"),
        (["--device", "tpu"], 1, "--device tpu"),
        ([], 1, "no length"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(pairs, tmp_path, capsys, arguments, code, words):
    found = run(cli, ["train", str(pairs), "--out", str(tmp_path / "run"), *arguments])
    out, err = capsys.readouterr()
    assert (found, out) == (code, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
    assert not (tmp_path / "run" / "config.toml").exists()


def test_missing_and_damaged_pairs_are_named(pairs, tmp_path, capsys):
    assert train(tmp_path / "none", "--out", tmp_path / "a", settings=("steps=1",)) == 1
    assert "none" in capsys.readouterr().err
    data = write_pairs(tmp_path / "data", 4)
    whole = (data / "2.png").read_bytes()
    (data / "2.png").write_bytes(whole[: len(whole) // 2])
    assert train(data, "--out", tmp_path / "b", settings=("steps=1",)) == 1
    err = capsys.readouterr().err
    assert "2.png" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("begun", "words"),
    [
        (True, "run the same command with --resume to go on"),
        (False, "run the same command to go on"),
    ],
)
def test_a_run_that_was_stopped_says_what_goes_on_with_it(
    pairs, tmp_path, capsys, monkeypatch, begun, words
):
    def stopped(_data, out, *, stop, **_options):
        out.mkdir()
        if begun:
            (out / "config.toml").touch()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)  # once more, as while pairs are being read

    monkeypatch.setattr("tilemapper.api.train.train_and_report", stopped)
    assert train(pairs, "--out", tmp_path / "run", settings=("steps=1",)) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"interrupted by signal 2; {words}"


def test_a_run_of_which_another_process_was_stopped_says_so(pairs, tmp_path, capsys, monkeypatch):
    """Its line said "stopped by the budget", and its exit code that all was well."""

    def left(_data, out, **_options):
        return RunResult(out, 7, False, {}, None, stopped=True)

    monkeypatch.setattr("tilemapper.api.train.train_and_report", left)
    assert train(pairs, "--out", tmp_path / "run", settings=("steps=9",)) == 75
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "another process of this run was stopped, at step 7; run the same command to" in err


@pytest.mark.fault
def test_a_signal_ends_a_run_within_ten_seconds_and_it_resumes(pairs, tmp_path):
    out = tmp_path / "run"
    words = [*TINY_SETTINGS, "--set", "steps=100000", "--threads", "1"]
    child = subprocess.Popen(
        [sys.executable, "-m", "tilemapper", "train", str(pairs), "--out", str(out), *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    err = child.communicate(timeout=60)[1]
    assert (child.returncode, time.monotonic() - asked < 10) == (143, True), err
    step = read_checkpoint(out / "checkpoints" / "last.ckpt")["step"]
    assert step >= 1
    assert run(cli, ["train", str(pairs), "--out", str(out), "--resume",
                     "--set", f"steps={step + 1}"]) == 0  # fmt: skip
