"""Renders on real dask clusters, with real processes: same bytes, whatever happens to them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dask
import psutil
import pytest
import rasterio

from tests.conftest import noise, write_raster
from tilemapper.errors import NoWorkerError, OptionError, RasterError, TilemapperError
from tilemapper.networks.model import Model, open_model
from tilemapper.render import messenger
from tilemapper.render.calls import spread_calls, staff
from tilemapper.render.cluster import blocks as cluster
from tilemapper.render.cluster import connection, own, surveying
from tilemapper.render.cluster.tasks import Facilities
from tilemapper.render.estimate import estimate
from tilemapper.render.journal import read_journal
from tilemapper.render.planning import plan_render
from tilemapper.render.render import render
from tilemapper.render.staging import open_staging, staging_folder
from tilemapper.render.workers import Order

ROOT = Path(__file__).parents[2]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    mask = noise(1080, 1100, bands=1)[0] > 2
    return write_raster(
        tmp_path_factory.mktemp("cluster") / "city.tif", noise(1080, 1100), mask=mask
    )


@pytest.fixture(scope="module")
def expected(city, models, tmp_path_factory):
    """sha256 of the map that this process makes alone; its name is in no tag."""
    target = tmp_path_factory.mktemp("alone") / "map.tif"
    render(city, target, models / "slow", block=512)
    return digest(target)


class Forked:
    """A program of dask's that runs in a fork: it begins in a moment."""

    def __init__(self, forks, name, options, env):
        program = f"from distributed.cli.{name} import main; main()"
        modules = "distributed.cli.dask_scheduler", "distributed.cli.dask_worker"
        self._run = forks.start(
            *options, cwd=ROOT, env=env, preload=modules, code=program, unlimited=True
        )
        self.pid = self._run.pid

    def poll(self):
        return None if self._run.runs else self.pid

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        self._run.wait()


class Farm:
    """A scheduler and workers of their own; without ``forks`` as a user starts them."""

    def __init__(self, folder, workers, *more, env=None, forks=None):
        self.file = folder / "scheduler.json"
        self.env = env or {}
        self.more = more
        self.forks = forks
        self.log = (folder / "log").open("w")
        self.runs = []
        host = [f"--host={'tls' if more else 'tcp'}://127.0.0.1", "--port=0"]
        self.start("dask_scheduler", *host, f"--scheduler-file={self.file}")
        for _ in range(workers):
            self.add()

    def start(self, name, *options):
        options = [*options, *self.more, "--dashboard-address=127.0.0.1:0"]
        if self.forks is not None:
            self.runs.append(Forked(self.forks, name, options, self.env))
            return
        command = [sys.executable, "-m", f"distributed.cli.{name}", *options]
        env = {**os.environ, **self.env}
        self.runs.append(subprocess.Popen(command, stdout=self.log, stderr=self.log, env=env))

    def add(self, *options):
        options = options or ("--nthreads=1",)
        fixed = [f"--scheduler-file={self.file}", "--no-nanny", "--memory-limit=0"]
        fixed.append(f"--local-directory={self.file.parent}")
        self.start("dask_worker", *fixed, *options)

    def ready(self):
        deadline = time.monotonic() + 300
        while not self.file.exists():
            assert time.monotonic() < deadline
            assert self.runs[0].poll() is None
            time.sleep(0.05)

    def staffed(self, workers):
        """Waits for workers: a render gives up after a minute, and a busy machine starts slowly."""
        address = connection.address_of(str(self.file), insecure=False)
        with connection.connected(address) as client:
            client.wait_for_workers(workers, timeout=300)

    def close(self):
        for run in self.runs:
            run.kill()
            run.wait()
        self.log.close()


@pytest.fixture(scope="module")
def farm(tmp_path_factory, forks):
    farm = Farm(tmp_path_factory.mktemp("farm"), 1, forks=forks)
    farm.forks = None  # one worker is what a user has, and imports the package at work
    farm.add()
    try:
        farm.ready()
        farm.staffed(2)
        yield farm
    finally:
        farm.close()


def spread(city, target, model, *, shuffle=None, planned=None, at=None, **options):
    """Renders all blocks of 512 px by `spread_blocks`; yields while it goes; returns receipts."""
    plan = plan_render(city, target, model, block=512)
    folder = staging_folder(target)
    folder.mkdir(exist_ok=True)
    staging = open_staging(folder, plan, restart=False)
    pending = [block for block in plan.blocks if block.name not in staging.done]
    if planned is not None:
        planned()
    if shuffle is not None:
        random.Random(shuffle).shuffle(pending)
    receipts = cluster.spread_blocks(plan, model, pending, staging.blocks, None, **options)
    with contextlib.closing(receipts):
        for number, receipt in enumerate(receipts):
            staging.append(receipt)
            if at is not None:
                at(number)
    return staging


def children():
    """Worker processes of this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended, or is about to
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def listening(processes):
    """Addresses at which processes listen."""
    found = set()
    for process in processes:
        for listener in process.net_connections(kind="inet"):
            if listener.status == psutil.CONN_LISTEN:
                found.add(listener.laddr.ip)
    return found


def test_two_workers_one_killed_in_a_block_make_the_same_bytes(
    city, models, expected, tmp_path, monkeypatch
):
    target, seen, ticks = tmp_path / "map.tif", set(), []
    everyones = tmp_path / "tmp"
    everyones.mkdir()
    monkeypatch.setenv("TMPDIR", str(everyones))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def tick(tiles):
        ticks.append(tiles)
        if len(ticks) == 1:  # blocks are under way, and take longer than this
            seen.update(listening([psutil.Process(), *children()]))
            children()[0].kill()

    result = render(city, target, models / "slow", block=512, workers=2, tick=tick)
    assert digest(target) == expected
    assert seen == {"127.0.0.1"}
    assert sum(ticks) == result.tiles
    assert not children()
    assert not staging_folder(target).exists()
    assert not list(everyones.iterdir())


def test_a_running_cluster_makes_the_same_bytes_in_any_order(
    city, models, expected, farm, tmp_path
):
    target, model = tmp_path / "map.tif", open_model(models / "slow")
    staging = spread(city, target, model, shuffle=1, scheduler=str(farm.file))
    assert len(staging.done) == 9
    # all blocks stand: this only joins them
    result = render(city, target, model)
    assert (digest(target), result.blocks_resumed) == (expected, 9)


def test_a_source_is_found_by_workers_that_were_started_in_another_folder(
    city, models, farm, tmp_path, monkeypatch
):
    monkeypatch.chdir(city.parent)
    target, model = tmp_path / "map.tif", open_model(models / "slow")
    spread(Path(city.name), target, model, scheduler=str(farm.file))
    render(city.name, target, model)
    with rasterio.open(target) as dst:
        assert json.loads(dst.tags()["TILEMAPPER_PLAN"])["source"]["path"] == city.name


def test_workers_on_gpus_are_told_the_device_that_each_sees_and_the_whole_path(
    city, models, tmp_path, monkeypatch
):
    monkeypatch.chdir(city.parent)
    model, orders = open_model(models / "slow"), []
    plan = plan_render(city.name, tmp_path / "map.tif", model, block=512)
    plan = replace(plan, device="cuda:1", devices="cuda:1,2")

    @contextlib.contextmanager
    def nobody(*_arguments, **_options):
        yield SimpleNamespace(cluster=None, close=lambda: None)

    def messenger_of(_client, order, _tasks, _own):
        orders.append(order)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(cluster, "own_workers", nobody)
    monkeypatch.setattr(cluster, "connected", nobody)
    monkeypatch.setattr(cluster, "Messenger", messenger_of)
    monkeypatch.setattr(cluster, "Spread", lambda *_arguments: [])
    assert not list(cluster.spread_blocks(plan, model, plan.blocks, tmp_path, None, workers=2))
    assert orders[0].plan.device == "cuda:0"
    assert orders[0].plan.source.path == str(city)


def test_without_a_shared_folder_pixels_and_model_travel(
    city, models, expected, farm, tmp_path, monkeypatch
):
    target, model = tmp_path / "map.tif", open_model(models / "slow")
    sent = []

    def elsewhere(plan, model, folder, probe, versions):
        far = Model(model.card, Path("/nowhere/model"))
        return Order(plan, far, Path("/nowhere/blocks"), probe, versions)

    def files(far):
        sent.append(far.card.name)
        return {"model.toml": (model.folder / "model.toml").read_bytes()}

    monkeypatch.setattr(cluster, "Order", elsewhere)
    monkeypatch.setattr(messenger, "model_files", files)
    spread(city, target, model, scheduler=str(farm.file))
    assert sent == ["slow", "slow"]
    monkeypatch.undo()
    render(city, target, model)
    assert digest(target) == expected


def test_a_dry_run_measures_on_a_worker_and_counts_all(city, models, farm, tmp_path):
    cost = estimate(city, tmp_path / "map.tif", models / "slow", scheduler=str(farm.file))
    # two workers, each with as many lanes as cores, of 0.02 s a batch
    assert cost.tiles_s < 2 * (os.cpu_count() or 1) * cost.batch_size / 0.02
    assert (cost.device, cost.blocks) == ("cpu", 9)
    assert not staging_folder(tmp_path / "map.tif").exists()


def test_a_dry_run_sends_the_model_where_it_is_missing(city, models, farm, tmp_path, monkeypatch):
    model = open_model(models / "unet")
    monkeypatch.setattr(surveying, "model_files", lambda far: messenger.model_files(model))
    far = Model(model.card, Path("/nowhere/model"))
    plan = plan_render(city, tmp_path / "map.tif", model)
    assert surveying.cluster_speed(str(farm.file), replace(plan, workers=2), far) > 0


def test_a_dry_run_names_workers_on_which_the_render_would_end(
    city, models, farm, tmp_path, monkeypatch
):
    here = surveying.versions()
    monkeypatch.setattr(surveying, "versions", lambda: here | {"torch": "1.0"})
    with pytest.raises(TilemapperError, match=r"has torch \S+, the client has 1\.0"):
        estimate(city, tmp_path / "map.tif", models / "slow", scheduler=str(farm.file))


def test_one_plan_fits_all_workers_with_the_best_device():
    workers = [
        Facilities("cpu", "bf16", 8),
        Facilities("cuda:0", "bf16", 128),
        Facilities("cuda:0", "bf16", 32),
    ]
    assert surveying.agreed(workers) == surveying.Survey(2, "cuda:0", "bf16", 32)
    old = Facilities("cuda:0", "fp32", 16)
    assert surveying.agreed([*workers, old]) == surveying.Survey(3, "cuda:0", "fp32", 16)
    assert surveying.agreed(workers[:1]) == surveying.Survey(1, "cpu", "bf16", 8)


def test_a_worker_that_does_not_fit_is_named_before_the_first_block(
    city, models, farm, tmp_path, monkeypatch
):
    here = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: here | {"rasterio": "0.9", "torch": "1.0"})
    with pytest.raises(TilemapperError) as raised:
        spread(city, tmp_path / "map.tif", open_model(models / "slow"), scheduler=str(farm.file))
    text = str(raised.value)
    assert f"has torch {here['torch']}, the client has 1.0" in text
    assert f"has rasterio {here['rasterio']}, the client has 0.9" in text
    assert text.count("tcp://127.0.0.1") == 4
    assert "\n" not in text


def test_a_worker_without_this_version_of_the_package_is_named_and_lives_on(
    city, models, forks, tmp_path
):
    farm, model = Farm(tmp_path, 0, forks=forks), open_model(models / "slow")
    target = tmp_path / "map.tif"
    old = tmp_path / "old.py"
    old.write_text("import sys\nsys.modules['tilemapper.render.cluster'] = None\n")
    try:
        farm.ready()
        farm.add("--nthreads=1", f"--preload={old}")
        farm.staffed(1)
        begun = time.monotonic()
        with pytest.raises(TilemapperError, match=r"worker tcp://\S+ cannot look around \(Module"):
            render(city, target, model, block=512, scheduler=str(farm.file))
        assert time.monotonic() - begun < surveying.LONELY_S
        with pytest.raises(TilemapperError, match=r"worker tcp://\S+ cannot look around \(Module"):
            surveying.cluster_speed(str(farm.file), plan_render(city, target, model), model)
        farm.add()
        farm.staffed(2)
        assert staff(str(farm.file)) == 2
        with pytest.raises(TilemapperError, match=r"worker tcp://\S+ cannot look around \(Module"):
            render(city, target, model, block=512, scheduler=str(farm.file))
        with pytest.raises(TilemapperError, match=r"worker tcp://\S+ cannot look around \(Module"):
            list(spread_calls(str.upper, iter("a"), failed=min, scheduler=str(farm.file)))
        assert all(run.poll() is None for run in farm.runs)
    finally:
        farm.close()


def test_whole_rasters_go_to_workers_that_declare_a_gpu_where_there_are_some(farm, forks):
    where = str(farm.file)
    options = {"failed": min, "scheduler": where, "lonely_s": 2.0}
    farm.forks = forks
    farm.add("--nthreads=1", "--resources=GPU=1")
    farm.forks = None
    chosen = farm.runs.pop()
    try:
        farm.staffed(3)
        assert (staff(where, device="auto"), staff(where, device="cpu")) == (1, 3)
        seen = set(spread_calls(lambda _: os.getpid(), iter("abcdef"), device="auto", **options))
        assert len(seen) == 1
        left = spread_calls(lambda _: os.getpid(), iter("ab" * 9), device="cuda", **options)
        assert {next(left)} == seen
    finally:
        chosen.kill()
        chosen.wait()
    # The others could not render it: what waits for a GPU would wait for ever.
    with pytest.raises(NoWorkerError, match="no worker with a GPU for 2 s"):
        list(left)


def test_whole_rasters_go_to_workers_of_the_clients_versions_alone(farm, monkeypatch):
    options = {"failed": min, "scheduler": str(farm.file)}
    assert list(spread_calls(str.upper, iter("a"), **options)) == ["A"]
    here = surveying.versions()
    monkeypatch.setattr(surveying, "versions", lambda: here | {"torch": "1.0"})
    with pytest.raises(TilemapperError, match=r"has torch \S+, the client has 1\.0"):
        list(spread_calls(str.upper, iter("a"), **options))


def test_another_source_on_the_workers_is_named(city, models, farm, tmp_path, monkeypatch):
    model, target = open_model(models / "slow"), tmp_path / "map.tif"

    def other(plan, *more):
        identity = dict(plan.source.identity) | {"size_bytes": 1}
        return Order(replace(plan, source=replace(plan.source, identity=identity)), *more)

    monkeypatch.setattr(cluster, "Order", other)
    with pytest.raises(TilemapperError, match=r"city\.tif: changed"):
        spread(city, target, model, scheduler=str(farm.file))


def test_a_block_that_cannot_be_read_is_named_after_four_tries(city, models, farm, tmp_path):
    city, target, model = tmp_path / "city.tif", tmp_path / "map.tif", open_model(models / "slow")
    write_raster(city, noise(600, 1100), tiled=True, compress="deflate")

    def damage():
        # Size and ends stay as they were, so that it still is the planned file.
        with city.open("r+b") as file:
            file.seek(city.stat().st_size // 2)
            file.write(bytes(20_000))

    with pytest.raises(
        RasterError, match=r"block r\d+-c\d+: failed 4 times, .*city\.tif"
    ) as raised:
        spread(city, target, model, scheduler=str(farm.file), planned=damage)
    assert isinstance(raised.value.__cause__, RasterError)


@pytest.mark.fault  # a busy machine makes healthy workers look stopped within such short limits
def test_a_stopped_worker_is_given_up_and_no_worker_ends_the_run(
    city, models, expected, farm, tmp_path
):
    model, target = open_model(models / "slow"), tmp_path / "map.tif"
    stopped = [psutil.Process(run.pid) for run in farm.runs[1:]]
    try:
        spread(
            city,
            target,
            model,
            scheduler=str(farm.file),
            stall_s=4,
            at=lambda number: number == 0 and stopped[0].suspend(),
        )
        render(city, target, model)
        assert digest(target) == expected
        begun = time.monotonic()
        with pytest.raises(NoWorkerError, match="no worker for 3 s"):
            spread(
                city,
                tmp_path / "again.tif",
                model,
                scheduler=str(farm.file),
                stall_s=3,
                lonely_s=3,
                load_s=3,
                at=lambda number: stopped[1].suspend(),
            )
        assert time.monotonic() - begun < 40
        kept = read_journal(staging_folder(tmp_path / "again.tif") / "journal")
        assert kept
    finally:
        for process in stopped:
            process.resume()


def words(city, target, model, *more):
    """A render by two workers."""
    command = ["render", str(city), str(target), "--model", str(model), "--block", "512"]
    return [*command, "--workers", "2", *more]


def start_command(*what):
    command = [sys.executable, "-m", "tilemapper", *words(*what)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def interrupted(begin, end, target, number, *, group):
    """How a render with two workers ends that gets a signal once a block stands.

    One that has ended by then is begun anew: the blocks that are left take less than a second.
    """
    for _ in range(20):
        run = begin()
        process, deadline = psutil.Process(run.pid), time.monotonic() + 300
        while not read_journal(staging_folder(target) / "journal"):
            assert time.monotonic() < deadline
            if process.status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.02)
        workers, asked = process.children(recursive=True), time.monotonic()
        (os.killpg if group else os.kill)(run.pid, number)
        ended = end(run)
        took_s = time.monotonic() - asked
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        if not target.exists():
            assert len(workers) >= 2
            assert took_s < 30  # 10 are promised, more where all is starved
            return ended
        target.unlink()
        shutil.rmtree(staging_folder(target), ignore_errors=True)
    raise AssertionError("no signal ended it")


def test_sigterm_ends_client_and_workers_and_the_same_command_goes_on(
    city, models, expected, forks, tmp_path
):
    target = tmp_path / "map.tif"
    what = words(city, target, models / "slow")
    ended = interrupted(
        lambda: forks.start(*what, cwd=tmp_path),
        lambda run: run.wait(60),
        target,
        signal.SIGTERM,
        group=False,
    )
    assert ended.code == 143
    assert ended.stderr == "interrupted by signal 15; run the same command to go on\n"
    result = render(city, target, models / "slow")
    assert result.blocks_resumed >= 1
    assert digest(target) == expected


@pytest.mark.fault
@pytest.mark.parametrize(
    ("number", "group", "code"),
    [
        (signal.SIGINT, False, 130),
        (signal.SIGINT, True, 130),  # as a terminal does: the workers get it as well
        (signal.SIGTERM, True, 143),
        (signal.SIGKILL, False, -9),
    ],
)
def test_no_signal_leaves_a_worker_behind(city, models, expected, tmp_path, number, group, code):
    target = tmp_path / "map.tif"

    def end(run):
        run.communicate(timeout=60)
        return run.returncode

    what = city, target, models / "slow"
    assert interrupted(lambda: start_command(*what), end, target, number, group=group) == code
    run = start_command(city, target, models / "slow", "--quiet")
    out, said = run.communicate(timeout=120)
    assert (run.returncode, said) == (0, "")
    assert "blocks stood already" in out
    assert digest(target) == expected


@pytest.mark.fault
def test_twenty_killed_workers_change_no_byte(models, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(2500, 2500))
    render(city, tmp_path / "alone.tif", models / "slow", block=512)
    chance, killed, stop = random.Random(5), [], threading.Event()

    def kill():
        while len(killed) < 20 and not stop.wait(chance.uniform(0.5, 5.0)):
            workers = children()
            if workers:
                worker = chance.choice(workers)
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while len(killed) < 20:
            render(
                city, tmp_path / "map.tif", models / "slow", block=512, workers=3, overwrite=True
            )
            assert digest(tmp_path / "map.tif") == digest(tmp_path / "alone.tif")
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 20
    assert not children()


@pytest.mark.fault
@pytest.mark.parametrize("name", ["unet", "classes"])
def test_every_way_of_spreading_makes_the_same_bytes(city, models, farm, tmp_path, name):
    target, options, found = tmp_path / "map.tif", {"overwrite": True}, {}
    for workers in (1, 2, 3):
        render(city, target, models / name, workers=workers, block=512, **options)
        found[workers] = digest(target)
    render(city, target, models / name, scheduler=str(farm.file), **options)
    found["scheduler"] = digest(target)
    render(city, target, models / name, block=1024, batch_size=1, **options)
    found["other blocks, other batches"] = digest(target)
    for seed in (1, 2):
        shuffled = tmp_path / f"{seed}" / "map.tif"
        shuffled.parent.mkdir()
        model = open_model(models / name)
        spread(city, shuffled, model, shuffle=seed, scheduler=str(farm.file))
        render(city, shuffled, model)
        found["shuffled", seed] = digest(shuffled)
    assert len(set(found.values())) == 1, found


@pytest.mark.fault
@pytest.mark.parametrize("what", ["suspend", "kill"])
def test_a_cluster_that_hangs_or_loses_all_ends_the_command_within_two_minutes(
    city, models, tmp_path, what
):
    farm, target = Farm(tmp_path, 2), tmp_path / "map.tif"
    try:
        farm.ready()
        command = [sys.executable, "-m", "tilemapper", "render", str(city), str(target), "--quiet"]
        command += ["--model", str(models / "slow"), "--block", "512"]
        command += ["--scheduler", str(farm.file)]
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not read_journal(staging_folder(target) / "journal"):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.02)
        for worker in farm.runs[1:]:
            getattr(psutil.Process(worker.pid), what)()
        begun = time.monotonic()
        _, said = run.communicate(timeout=130)
        print(f"{what}: ended after {time.monotonic() - begun:.0f} s: {said}")
        assert run.returncode == 75
        assert time.monotonic() - begun < 120
        assert len(said.splitlines()[-1:]) == 1
        assert "run the same command again" in said.splitlines()[-1]
        assert read_journal(staging_folder(target) / "journal")
    finally:
        for worker in farm.runs[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(worker.pid).resume()
        farm.close()


@pytest.mark.fault
def test_a_scheduler_that_dies_ends_the_run_with_what_is_done_kept(city, models, tmp_path):
    farm = Farm(tmp_path, 1)
    try:
        farm.ready()
        target = tmp_path / "map.tif"
        begun = time.monotonic()
        with pytest.raises(NoWorkerError) as raised:
            spread(
                city,
                target,
                open_model(models / "slow"),
                scheduler=str(farm.file),
                at=lambda number: number == 1 and farm.runs[0].kill(),
            )
        assert time.monotonic() - begun < 120
        assert raised.value.exit_code == 75
        assert len(read_journal(staging_folder(target) / "journal")) >= 2
    finally:
        farm.close()


def test_no_scheduler_at_the_address_is_one_line_after_the_time_that_dask_is_set_to(
    city, models, tmp_path
):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1100ms"}),
        pytest.raises(NoWorkerError, match=r"tcp://127\.0\.0\.1:9: no scheduler .* after 1\.1 s"),
    ):
        render(city, tmp_path / "map.tif", models / "slow", scheduler="tcp://127.0.0.1:9")
    assert not staging_folder(tmp_path / "map.tif").exists()


def test_a_client_without_certificates_is_closed_once_it_has_failed(monkeypatch):
    made = []

    class Noted(connection._Client):
        def start(self, **options):
            made.append(self)
            super().start(**options)

    monkeypatch.setattr(connection, "_Client", Noted)
    with (
        pytest.raises(NoWorkerError, match=r"no scheduler answers .* TLS settings"),
        connection.connected("tls://127.0.0.1:9"),
    ):
        pass
    assert [client.status for client in made] == ["closed"]  # else the program's end hangs on it


@pytest.mark.fault
def test_tls_is_taken_from_dasks_own_configuration(city, models, expected, tmp_path):
    import dask
    from distributed.security import Security

    own, names = Security.temporary(), {"ca": "tls_ca_file", "cert": "tls_scheduler_cert"}
    for short, name in {**names, "key": "tls_scheduler_key"}.items():
        (tmp_path / short).write_text(getattr(own, name))
    options = [
        f"--tls-{'ca-file' if s == 'ca' else s}={tmp_path / s}" for s in ("ca", "cert", "key")
    ]
    settings = {"distributed.comm.tls.ca-file": str(tmp_path / "ca")}
    for short in ("cert", "key"):
        settings[f"distributed.comm.tls.client.{short}"] = str(tmp_path / short)
    farm = Farm(tmp_path, 1, *options)
    try:
        farm.ready()
        with dask.config.set(settings):
            render(city, tmp_path / "map.tif", models / "slow", block=512, scheduler=str(farm.file))
    finally:
        farm.close()
    assert "tls://" in farm.file.read_text()
    assert digest(tmp_path / "map.tif") == expected


def test_a_dashboard_without_bokeh_is_refused_before_anything_starts(
    city, models, tmp_path, monkeypatch
):
    monkeypatch.setattr(own.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="bokeh is not installed"):
        render(city, tmp_path / "map.tif", models / "slow", block=512, workers=2, dashboard=True)
    assert not children()


@pytest.mark.fault
def test_a_hung_worker_of_our_own_is_killed_and_started_again(city, models, expected, tmp_path):
    target, model, hung = tmp_path / "map.tif", open_model(models / "slow"), []

    def hang(number):
        if number == 0:
            hung.append(children()[0])
            hung[0].suspend()

    spread(city, target, model, workers=2, stall_s=10, at=hang)
    assert not hung[0].is_running()
    assert not children()
    render(city, target, model)
    assert digest(target) == expected
