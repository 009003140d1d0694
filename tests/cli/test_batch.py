from __future__ import annotations

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from tests.archive.world import write_archive, write_job
from tilemapper.archive.jobfile import load_job
from tilemapper.archive.session import Session
from tilemapper.archive.spreading import Spread
from tilemapper.cli import archive_progress
from tilemapper.cli.batch import _spread, batch
from tilemapper.cli.main import cli, run
from tilemapper.cli.status import status
from tilemapper.errors import DiskFullError, Interrupted, JobError


@pytest.fixture
def job(tmp_path, models):
    write_archive(tmp_path / "in", 3)
    return write_job(tmp_path, models / "identity", render="batch_size = 1")


def call(command, *args: str):
    """Exit code as the console script would have it, stdout and stderr."""
    runner = CliRunner()
    code: list[int] = []

    def main() -> None:
        code.append(run(command, list(args)))

    with runner.isolation() as streams:
        main()
        out, err = streams[0].getvalue().decode(), streams[1].getvalue().decode()
    return code[0], out, err


def test_a_run_prints_one_line_and_ends_with_0(job):
    code, out, err = call(batch, str(job))
    assert code == 0
    assert out == out.splitlines()[0] + "\n"
    assert out.startswith("nightly: 3 rendered, 0 stood already, 0 failed, 0 skipped, 0 left")
    assert "3 scenes, 3 to render: 3 new" in err


def test_json_is_one_object_a_line_and_the_summary_comes_last(job):
    code, out, _ = call(batch, str(job), "--json", "-q")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert lines[0] == {"listed": 3, "planned": 3, "todo": 3, "gone": 0, "reasons": {"new": 3}}
    assert [line["state"] for line in lines[1:-1]] == ["done"] * 3
    assert lines[-1]["summary"]["exit_code"] == 0


def test_progress_tells_scenes_pixels_rate_and_time_left(job, monkeypatch):
    monkeypatch.setattr(archive_progress, "LOG_EVERY_S", 0.0)
    _, _, err = call(batch, str(job))
    said = [line for line in err.splitlines() if " of 3 scenes" in line]
    assert [line.split()[0] for line in said] == ["1", "2", "3"]
    words = r"\d of 3 scenes, 0 failed, 0\.0 Mpx at [\d.]+ Mpx/s, about 0 min left"
    assert all(re.fullmatch(words, line) for line in said)


def test_a_failure_names_its_scene_whatever_its_reason_speaks_of(job):
    job.write_text(job.read_text().replace("[run]", 'tone = "match"\n[run]'))
    for command in (batch, batch, status):
        _, out, err = call(command, str(job))
        lines = [line for line in (out + err).splitlines() if "--tone match" in line]
        assert len({re.search(r"scene_\d+\.tif: --tone", line)[0] for line in lines}) == 3


def test_failures_end_with_3_and_one_line_each(job):
    (job.parent / "in" / "empty.tif").write_bytes(b"")
    code, out, err = call(batch, str(job))
    assert code == 3
    failures = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 1
    assert "empty.tif: the file is empty" in failures[0]
    assert "2 to render" not in err
    code, out, err = call(batch, str(job))
    assert code == 3
    assert "failed before: " in err
    assert "0 rendered, 3 stood already, 1 failed" in out


def test_a_dry_run_writes_nothing_and_says_what_and_why(job):
    code, out, _ = call(batch, str(job), "--dry-run")
    assert code == 0
    assert "scenes   3, 3 to render" in out
    assert "3 new" in out
    assert not (job.parent / "out").exists()
    code, out, _ = call(batch, str(job), "--dry-run", "--json")
    assert json.loads(out)["tiles"] == 3
    assert json.loads(out)["pixels"] == 3 * 40 * 40


def test_after_a_run_a_dry_run_knows_the_pace(job):
    call(batch, str(job))
    (job.parent / "in" / "2026-03-01" / "scene_00000.tif").touch()
    _, out, _ = call(batch, str(job), "--dry-run", "--json")
    cost = json.loads(out)
    assert cost["reasons"] == {"source changed": 1}
    assert cost["hours"] > 0
    assert cost["disk_bytes"] > 0


@pytest.mark.parametrize("more", [[], ["-q"], ["--dry-run"]])
def test_an_archive_without_a_scene_is_said_though_it_is_no_failure(job, more):
    """A disk that is not mounted leaves an empty folder, and a night without a word."""
    call(batch, str(job), "-q")
    shutil.move(job.parent / "in", job.parent / "elsewhere")
    (job.parent / "in").mkdir()
    code, _, err = call(batch, str(job), *more)
    assert code == 0
    assert "source.scenes lists no scene" in err
    assert ("0 scenes, 0 to render, 3 are listed no more" in err) == (not more)


def test_typed_workers_are_not_looked_for_where_nothing_is_to_do(job, monkeypatch):
    """To count devices takes torch, which takes two seconds to load."""
    call(batch, str(job), "-q")
    monkeypatch.setattr("tilemapper.cli.batch._spread", lambda *_: pytest.fail("looked for"))
    assert call(batch, str(job), "-q", "--workers", "2")[0] == 0
    assert call(batch, str(job), "-q", "--workers", "0")[0] == 2


def test_no_workers_at_all_are_refused_as_by_render(job):
    code, out, err = call(batch, str(job), "--workers", "0")
    assert (code, out) == (2, "")
    assert "must be auto, or a number from 1 on" in err


def test_workers_that_are_typed_win_over_the_scheduler_of_the_job(job):
    job.write_text(job.read_text().replace("[run]", '[run]\nscheduler = "tcp://127.0.0.1:1"'))
    checked = load_job(job)
    assert _spread(checked, None, None, False) == Spread(
        scheduler="tcp://127.0.0.1:1", device="cpu"
    )
    assert _spread(checked, 2, None, False) == Spread(workers=2, device="cpu")
    assert _spread(checked, 1, None, False) is None


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:1,0"])
def test_workers_are_given_the_gpus_that_the_job_names(job, device):
    job.write_text(job.read_text().replace('device = "cpu"', f'device = "{device}"'))
    assert _spread(load_job(job), 2, None, False) == Spread(workers=2, device=device)


def test_metrics_that_cannot_be_written_are_refused_before_the_run(job, tmp_path):
    code, out, err = call(batch, str(job), "--metrics", str(tmp_path / "none" / "m.prom"))
    assert (code, out) == (1, "")
    assert "m.prom: cannot be written (No such file or directory)" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(DiskFullError("disk: full; wait"), 75), (Interrupted(15), 143), (JobError("job: bad"), 1)],
)
def test_a_run_that_is_cut_short_leaves_its_figures_too(job, tmp_path, monkeypatch, error, code):
    path = tmp_path / "m.prom"
    real = Session.close

    def close(run, outcome):
        if run.summary.done:
            raise error
        real(run, outcome)

    monkeypatch.setattr(Session, "close", close)
    assert call(batch, str(job), "--metrics", str(path))[0] == code
    text = path.read_text()
    assert f'tilemapper_last_run_exit_code{{job="nightly"}} {code}' in text
    assert 'tilemapper_last_run_scenes_done{job="nightly"} 1' in text
    assert 'tilemapper_last_run_scenes_left{job="nightly"} 2' in text
    assert 'tilemapper_scenes{job="nightly",state="done"} 1' in text


@pytest.mark.parametrize("shard", ["0/3", "4/3", "a/b", "3", "-1/3"])
def test_a_shard_that_makes_no_sense_is_a_usage_error(job, shard):
    code, _, err = call(batch, str(job), f"--shard={shard}")
    assert code == 2
    assert "I/N" in err


def test_a_missing_job_is_one_line(tmp_path):
    code, out, err = call(batch, str(tmp_path / "none.toml"))
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out


def test_status_counts_and_names_failures(job):
    (job.parent / "in" / "empty.tif").write_bytes(b"")
    call(batch, str(job))
    (job.parent / "in" / "2026-03-01" / "scene_00000.tif").touch()
    code, out, _ = call(status, str(job))
    assert code == 0
    assert "done     3" in out
    assert "empty.tif: the file is empty" in out
    assert "next     1 to render: 1 source changed" in out
    code, out, _ = call(status, str(job), "--json")
    found = json.loads(out)
    assert found["counts"]["failed"] == 1
    assert found["next"]["reasons"] == {"source changed": 1}
    assert "next" not in call(status, str(job), "--no-next")[1]


def test_status_of_a_job_that_never_ran_says_so(job):
    code, out, _ = call(status, str(job))
    assert code == 0
    assert "never ran" in out
    assert "next     3 to render: 3 new" in out


def test_status_reads_the_ledger_though_the_archive_cannot_be_listed(job):
    call(batch, str(job))
    (job.parent / "in").rename(job.parent / "away")
    code, out, _ = call(status, str(job))
    assert code == 0
    assert "done     3" in out
    assert "next     unknown: " in out
    assert "no such file or folder" in out


def test_status_of_a_list_on_stdin_waits_for_nobody(job):
    job.write_text(job.read_text().replace('["in"]', '["-"]'))
    code, out, _ = call(status, str(job))
    assert code == 0
    assert "next" not in out


def test_both_commands_are_listed():
    result = CliRunner().invoke(cli, ["--help"])
    assert "batch" in result.output
    assert "status" in result.output
