"""Who renders what, with workers made of a clock: deaths, failures, silence, the last blocks."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from tilemapper.errors import NoWorkerError, RasterError, TilemapperError
from tilemapper.raster.lattice import Block
from tilemapper.render.crew import Examined, Finished, Progress
from tilemapper.render.journal import Receipt
from tilemapper.render.spread import DEPTH, Spread
from tilemapper.render.workers import Look

FITS = Look((), shares_folder=True, holds_model=True)


def blocks(count):
    return [Block(512 * index, 0, 512, 512) for index in range(count)]


def receipt(block, tiles=4):
    return Receipt(block.name, {}, {}, any_valid=True, any_invalid=False, tiles=tiles)


class FakeCrew:
    """Workers that take ``seconds`` for a block, one after another; time is a number here."""

    def __init__(self, *names, seconds=1.0):
        self.now = 0.0
        self.here = set(names)
        self.seconds = {name: seconds for name in names}
        self.looks = {}
        self.queues = {name: [] for name in names}
        self.most = Counter()
        self.done_by = Counter()
        self.models_sent = Counter()
        self.ended = []
        self.answer = lambda name, block: receipt(block)
        self.silent = set()
        self.said = []
        self.hook = lambda: None
        self.unreachable = False

    def clock(self):
        return self.now

    def join(self, name, seconds=1.0):
        self.here.add(name)
        self.queues[name], self.seconds[name] = [], seconds

    def leave(self, name):
        self.here.discard(name)
        self.queues[name] = []

    def present(self):
        return None if self.unreachable else set(self.here)

    def examine(self, address):
        if address not in self.silent:
            self.said.append(Examined(address, self.looks.get(address, FITS)))

    def send_model(self, address):
        self.models_sent[address] += 1
        self.looks[address] = FITS
        self.examine(address)

    def render(self, ticket, address, block, *, carry):
        self.queues[address].append([ticket, block, None])
        self.most[address] = max(self.most[address], len(self.queues[address]))

    def forget(self, ticket):
        for queue in self.queues.values():
            queue[:] = [entry for entry in queue if entry[0] != ticket]

    def end(self, address):
        self.ended.append(address)

    def events(self, timeout_s):
        self.hook()
        if not self.said:
            self.now += 0.25
        for name, queue in self.queues.items():
            if not queue or name in self.silent or name not in self.here:
                continue
            ticket, block, begun = queue[0]
            if begun is None:
                queue[0][2] = self.now
                self.said.append(Progress(ticket, 1))
            elif self.now - begun >= self.seconds[name]:
                queue.pop(0)
                answer = self.answer(name, block)
                self.done_by[name] += 1
                if isinstance(answer, Receipt):
                    answer = (answer, {})
                self.said.append(Finished(ticket, answer))
        said, self.said = self.said, []
        return said


def spread(crew, count, folder, **options):
    return Spread(crew, blocks(count), folder, clock=crew.clock, **options)


def names(receipts):
    return sorted(receipt.block for receipt in receipts)


def test_every_block_is_rendered_once_and_every_tile_ticked_once(tmp_path):
    crew, ticks = FakeCrew("a", "b", "c"), []
    assert names(spread(crew, 20, tmp_path, tick=ticks.append)) == names(blocks_of(20))
    assert sum(ticks) == 4 * 20
    assert sum(crew.done_by.values()) == 20


def blocks_of(count):
    return [receipt(block) for block in blocks(count)]


def test_no_more_than_two_blocks_are_out_at_a_worker(tmp_path):
    crew = FakeCrew("a", "b")
    list(spread(crew, 30, tmp_path))
    assert set(crew.most.values()) == {DEPTH}


def test_a_fast_worker_gets_more_and_none_waits_at_the_end(tmp_path):
    crew = FakeCrew("fast", "slow")
    crew.seconds["slow"] = 8.0
    list(spread(crew, 24, tmp_path))
    assert crew.done_by["fast"] >= 5 * crew.done_by["slow"]
    # alone the fast one needs 24 s; no block waits behind another at the slow one near the end
    assert crew.now < 36


def test_eight_workers_are_nearly_eight_times_as_fast(tmp_path):
    times = []
    for count in (1, 8):
        crew = FakeCrew(*map(str, range(count)), seconds=10.0)
        list(spread(crew, 64, tmp_path))
        times.append(crew.now)
    assert times[0] / times[1] > 7.2


def test_blocks_of_a_lost_worker_are_rendered_by_the_others(tmp_path):
    crew = FakeCrew("a", "b")

    def lose():
        if crew.now > 2:
            crew.leave("b")

    crew.hook = lose
    assert names(spread(crew, 12, tmp_path)) == names(blocks_of(12))
    assert crew.done_by["a"] > 8


def test_a_worker_lost_while_it_looks_around_is_no_misfit(tmp_path):
    crew = FakeCrew("a", "b")
    crew.looks["b"] = None

    def leave():
        if crew.now > 1:
            crew.leave("b")

    crew.hook = leave
    assert len(list(spread(crew, 6, tmp_path))) == 6


def test_a_worker_that_joins_late_gets_work(tmp_path):
    crew = FakeCrew("a")

    def join():
        if crew.now > 2 and "b" not in crew.here:
            crew.join("b")

    crew.hook = join
    list(spread(crew, 20, tmp_path))
    assert crew.done_by["b"] > 5


def test_a_failing_block_is_tried_four_times_and_named_with_its_cause(tmp_path):
    crew, tries = FakeCrew("a", "b"), []
    bad = blocks(9)[4]

    def answer(name, block):
        if block == bad:
            tries.append(name)
            return RasterError("city.tif: cannot be read at row 2048")
        return receipt(block)

    crew.answer = answer
    done = []
    with pytest.raises(RasterError, match=r"city\.tif: cannot be read") as raised:
        for part in spread(crew, 9, tmp_path):
            done.append(part)
    assert bad.name in str(raised.value)
    assert "failed 4 times" in str(raised.value)
    assert len(tries) == 4
    assert set(tries) == {"a", "b"}
    assert names(done) == sorted(block.name for block in blocks(9) if block != bad)


def test_a_block_that_fails_thrice_and_then_not_is_done(tmp_path):
    crew, tries = FakeCrew("a"), Counter()

    def answer(name, block):
        tries[block.name] += 1
        return OSError("flaky") if tries[block.name] < 4 else receipt(block)

    crew.answer = answer
    assert len(list(spread(crew, 3, tmp_path))) == 3


def test_a_block_that_is_damaged_on_its_way_is_sent_again(tmp_path):
    """Without a shared folder pixels travel; what arrives otherwise than it left is not staged."""
    crew = FakeCrew("a", "b")
    crew.looks = {name: replace(FITS, shares_folder=False) for name in "ab"}
    content = b"pixels"
    sent = []

    def travels(name, block):
        sent.append(block.name)
        data = b"pixelz" if len(sent) == 2 else content
        files = {"map.tiles": hashlib.sha256(content).hexdigest()}
        return replace(receipt(block), files=files), {"map.tiles": data}

    crew.answer = travels
    done = list(spread(crew, 4, tmp_path))
    assert names(done) == [block.name for block in blocks(4)]
    assert len(sent) == 5
    assert all((tmp_path / r.block / "map.tiles").read_bytes() == content for r in done)


def test_an_error_that_is_not_ours_keeps_its_kind_in_the_message(tmp_path):
    crew = FakeCrew("a")
    crew.answer = lambda name, block: ZeroDivisionError("by zero")
    with pytest.raises(TilemapperError, match="ZeroDivisionError: by zero") as raised:
        list(spread(crew, 1, tmp_path))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert raised.value.exit_code == 1


def test_a_bad_worker_does_not_fail_a_block_that_others_can_render(tmp_path):
    crew = FakeCrew("good", "bad")
    crew.seconds["bad"] = 0.25
    crew.answer = lambda name, block: OSError("broken") if name == "bad" else receipt(block)
    assert len(list(spread(crew, 10, tmp_path))) == 10


def test_a_hung_worker_is_given_up_and_ended(tmp_path):
    crew = FakeCrew("a", "hung")

    def hang():
        if crew.now > 2:
            crew.silent.add("hung")

    crew.hook = hang
    assert len(list(spread(crew, 10, tmp_path))) == 10
    assert crew.ended == ["hung"]
    assert crew.now < 60


def test_when_all_workers_hang_the_run_ends_within_two_minutes(tmp_path):
    crew = FakeCrew("a", "b")

    def hang():
        if crew.now > 2:
            crew.silent |= {"a", "b"}

    crew.hook = hang
    done = []
    with pytest.raises(NoWorkerError) as raised:
        for part in spread(crew, 50, tmp_path):
            done.append(part)
    assert crew.now - 2 < 120
    assert raised.value.exit_code == 75
    assert done


def test_a_block_on_which_workers_hang_twice_ends_the_run_within_two_minutes(tmp_path):
    crew, born = FakeCrew("w0"), [0]
    crew.answer = lambda name, block: receipt(block)
    crew.seconds["w0"] = 1e9

    def revive(address):
        crew.leave(address)
        born[0] += 1
        crew.join(f"w{born[0]}", seconds=1e9)

    crew.end = revive
    with pytest.raises(NoWorkerError, match="lost again and again"):
        list(spread(crew, 1, tmp_path))
    assert crew.now < 120


@pytest.mark.parametrize("what", ["none", "mute", "unreachable"])
def test_without_a_worker_from_the_start_the_run_ends_within_two_minutes(tmp_path, what):
    crew = FakeCrew(*(["a"] if what != "none" else []))
    crew.silent |= {"a"} if what == "mute" else set()
    crew.unreachable = what == "unreachable"
    with pytest.raises(NoWorkerError):
        list(spread(crew, 3, tmp_path))
    assert crew.now < 120


def test_a_run_that_was_suspended_for_an_hour_goes_on(tmp_path):
    crew, found = FakeCrew("a", "b"), []
    for got in spread(crew, 6, tmp_path):
        found.append(got)
        crew.now += 3600.0 if len(found) == 2 else 0.0
    assert len(found) == 6


def test_a_slow_device_is_not_taken_for_a_hung_one(tmp_path):
    crew = FakeCrew("a", seconds=20.0)

    def slower():
        if crew.now > 100:
            crew.seconds["a"] = 150.0

    crew.hook = slower
    assert len(list(spread(crew, 8, tmp_path))) == 8


def test_a_block_on_which_workers_die_again_and_again_ends_the_run(tmp_path):
    crew, born = FakeCrew("w0"), [0]
    poison = blocks(6)[2]

    def die():
        for name in list(crew.here):
            queue = crew.queues[name]
            if queue and queue[0][1] == poison and queue[0][2] is not None:
                crew.leave(name)
                born[0] += 1
                crew.join(f"w{born[0]}")

    crew.hook = die
    done = []
    with pytest.raises(NoWorkerError, match="lost again and again") as raised:
        for part in spread(crew, 6, tmp_path):
            done.append(part)
    assert poison.name in str(raised.value)
    # it goes to the end of the line, so that all others are done before it ends the run
    assert len(done) == 5


def test_twenty_deaths_in_a_row_change_nothing_while_blocks_are_finished(tmp_path):
    crew, born, ticks = FakeCrew("w0", "w1"), [1], []
    last = [0.0]

    def die():
        if born[0] < 21 and crew.now - last[0] > 1.6:
            last[0] = crew.now
            crew.leave(sorted(crew.here)[0])
            born[0] += 1
            crew.join(f"w{born[0]}")

    crew.hook = die
    assert names(spread(crew, 90, tmp_path, tick=ticks.append)) == names(blocks_of(90))
    assert born[0] == 21
    assert sum(ticks) == 4 * 90


def test_workers_that_do_not_fit_at_the_start_are_named_once_for_each_fault(tmp_path):
    crew = FakeCrew("a", "b", "c")
    crew.looks["b"] = crew.looks["c"] = Look(("has torch 1.0, the client has 2.0",), True, True)
    with pytest.raises(TilemapperError, match=r"worker b, c has torch 1\.0") as raised:
        list(spread(crew, 3, tmp_path))
    assert "\n" not in str(raised.value)
    assert not crew.done_by


def test_a_worker_that_hangs_at_the_start_does_not_hold_up_the_others(tmp_path):
    crew = FakeCrew("a", "mute")
    crew.silent.add("mute")
    assert len(list(spread(crew, 6, tmp_path))) == 6
    assert crew.now < 40


def test_a_worker_that_does_not_fit_and_comes_late_is_left_out_with_one_line(tmp_path, caplog):
    crew = FakeCrew("a")

    def join():
        if crew.now > 2 and "b" not in crew.here:
            crew.looks["b"] = Look(("has torch 1.0, the client has 2.0",), True, True)
            crew.join("b")

    crew.hook = join
    assert len(list(spread(crew, 8, tmp_path))) == 8
    assert crew.done_by["b"] == 0
    assert len([r for r in caplog.records if "left out" in r.message]) == 1


def test_the_model_is_sent_once_to_a_worker_that_lacks_it(tmp_path):
    crew = FakeCrew("a", "b")
    crew.looks["b"] = Look((), shares_folder=True, holds_model=False)
    list(spread(crew, 12, tmp_path))
    assert crew.models_sent == {"b": 1}
    assert crew.done_by["b"] > 2


def test_what_was_finished_is_handed_on_before_an_error_ends_the_run(tmp_path):
    crew = FakeCrew("a", "b")
    crew.answer = lambda name, block: receipt(block) if block.row else OSError("no")
    done = []
    with pytest.raises(TilemapperError):
        for part in spread(crew, 2, tmp_path):
            done.append(part)
    assert len(done) == 1
