"""The example jobs and schedules, as they stand in the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.archive.world import write_archive, write_job
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.jobfile import load_job
from tilemapper.cli.batch import batch
from tilemapper.cli.main import run

PIPELINES = Path(__file__).parents[2] / "pipelines"
SCHEDULES = PIPELINES / "schedules"
JOBS = sorted(
    path for path in PIPELINES.glob("*.toml")
    if tomllib.loads(path.read_text())["kind"] == "archive"
)  # fmt: skip


def test_there_is_a_job_for_each_kind_of_source():
    names = {path.stem for path in JOBS}
    assert names >= {"nightly", "backfill", "mosaic", "list", "stdin", "stac", "s3", "https"}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_example_jobs_load_and_say_how_they_are_run(path):
    job = load_job(path)
    assert isinstance(job, ArchiveJob)
    assert job.name == path.stem
    head = path.read_text().split("kind =")[0]
    for word in ("command:", "schedule:", "expected:"):
        assert word in head


def test_the_nightly_job_renders_a_folder(tmp_path, models, monkeypatch):
    shutil.copytree(models / "identity", tmp_path / "models" / "maps")
    monkeypatch.setenv("TILEMAPPER_MODELS", str(tmp_path / "models"))
    shutil.copy(PIPELINES / "nightly.toml", tmp_path)
    write_archive(tmp_path / "imagery", 2)
    (tmp_path / "imagery" / "a_preview.tif").write_bytes(b"")
    # Tests may run where less disk is free than a night needs.
    text = (tmp_path / "nightly.toml").read_text().replace("min_free_gb = 20", "min_free_gb = 0")
    (tmp_path / "nightly.toml").write_text(text)
    metrics = tmp_path / "metrics.prom"
    assert run(batch, [str(tmp_path / "nightly.toml"), "--metrics", str(metrics), "-q"]) == 0
    assert len(list((tmp_path / "maps").rglob("*_map.tif"))) == 2
    assert 'state="done"} 2' in metrics.read_text()


@pytest.mark.parametrize("path", sorted(SCHEDULES.iterdir()), ids=lambda path: path.name)
def test_schedules_call_the_command_with_options_that_it_has(path):
    known = {option for parameter in batch.params for option in parameter.opts}
    calls = re.findall(r"tilemapper batch ([^\n|&>`]*)", path.read_text())
    calls += re.findall(r'args: \["batch", ([^\]]*)\]', path.read_text())
    if path.suffix not in (".timer",):
        assert calls
    for call in calls:
        for option in re.findall(r"(?<![\w-])--[a-z-]+", call):
            assert option in known, (path.name, option)


@pytest.mark.parametrize("path", sorted(SCHEDULES.glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_files_run_without_rights_and_restart_by_exit_code(path):
    document = yaml.safe_load(path.read_text())
    spec = document["spec"]
    job = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
    codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert codes == [1, 2, 3]  # 75 and signals are tried again
    pod = job["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["restartPolicy"] == "Never"
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
@pytest.mark.parametrize("path", sorted(SCHEDULES.glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_knows_every_field(path):
    """Read into kubectl's own types and written again, nothing is lost; no cluster is asked."""
    done = subprocess.run(
        ["kubectl", "set", "image", "--local", "-f", str(path), "tilemapper=other", "-o", "json"],
        capture_output=True, text=True, check=True, env={**os.environ, "KUBECONFIG": os.devnull},
    )  # fmt: skip

    def lost(ours, theirs, place: str = "") -> list[str]:
        if isinstance(ours, dict):
            pairs = [(value, theirs.get(key), f"{place}/{key}") for key, value in ours.items()]
        elif isinstance(ours, list):
            pairs = [(value, theirs[i], f"{place}/{i}") for i, value in enumerate(ours)]
        else:
            return []
        return [
            name for value, other, name in pairs
            for name in ([name] if other is None else lost(value, other, name))
        ]  # fmt: skip

    assert lost(yaml.safe_load(path.read_text()), json.loads(done.stdout)) == []


def test_the_cron_line_is_one_line_that_a_shell_takes():
    lines = (SCHEDULES / "tilemapper.cron").read_text().splitlines()
    (entry,) = [line for line in lines if re.match(r"\d", line)]
    *when, user, command = entry.split(maxsplit=6)
    assert len(when) == 5
    assert user == "tilemapper"
    assert not re.search(r"(?<!\\)%", command)  # cron would cut the line there
    assert "flock --nonblock" in command
    subprocess.run(["sh", "-n", "-c", command], check=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_accepts_the_units(tmp_path):
    units = []
    for name in ("tilemapper.service", "tilemapper.timer"):
        units.append(shutil.copy(SCHEDULES / name, tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def array_task(index: int, count: int, bin_folder: Path, job: Path) -> subprocess.Popen:
    """A task of the SLURM array, as SLURM would start it."""
    return subprocess.Popen(
        ["bash", str(SCHEDULES / "slurm-array.sbatch")], stdout=subprocess.PIPE, text=True,
        env={
            "PATH": f"{bin_folder}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(index),
            "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_JOB_ID": "77",
            "TILEMAPPER_JOB": str(job), "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip


@pytest.mark.fault  # for the time that it takes
def test_the_tasks_of_a_slurm_array_do_every_scene_once(tmp_path, models):
    write_archive(tmp_path / "in", 12)
    job = write_job(tmp_path, models / "identity", render="batch_size = 1")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "tilemapper"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tilemapper "$@"\n')
    command.chmod(0o755)
    tasks = [array_task(index, 3, tmp_path / "bin", job) for index in (1, 2, 3)]
    lines = [task.communicate()[0].splitlines()[-1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0]
    done = [int(re.search(r": (\d+) rendered", line)[1]) for line in lines]
    assert sum(done) == 12
    assert all(done)
    assert len(list((tmp_path / "out").rglob("*_map.tif"))) == 12


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_the_slurm_script_hands_a_warning_on_and_goes_back_into_the_queue(tmp_path):
    """Run with a stand-in for the command that ends with 143 when it is told to."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "tilemapper"
    code = (
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); "
        "print(sys.argv[1:], flush=True); signal.pause()"
    )
    fake.write_text(f"#!{sys.executable}\n{code}\n")
    queue = tmp_path / "bin" / "scontrol"
    queue.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/queued\n')
    fake.chmod(0o755)
    queue.chmod(0o755)
    process = array_task(3, 16, tmp_path / "bin", tmp_path / "backfill.toml")
    assert process.stdout is not None
    assert "'--shard', '3/16'" in process.stdout.readline()
    process.terminate()
    assert process.wait(timeout=20) == 143
    process.stdout.close()
    assert (tmp_path / "queued").read_text() == "requeue 77_3\n"
