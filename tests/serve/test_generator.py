"""The generator's thread: what it runs, in which order, and how it fails."""

from __future__ import annotations

import threading
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest

from tilemapper.errors import ModelError, TilemapperError
from tilemapper.networks.model import open_model
from tilemapper.serve.generator import Generator

TILE = np.zeros((256, 256, 3), np.uint8)


class Recorder:
    """An engine that answers with zeros, notes its calls, and can be made to wait."""

    def __init__(self, kind="cpu", lanes=1, batch_size=4, error=None):
        self.device, self.lanes, self.batch_size = SimpleNamespace(type=kind), lanes, batch_size
        self.calls, self.error = [], error
        self.go = threading.Event()
        self.go.set()

    def enter_lane(self):
        pass

    def predict(self, tiles):
        self.go.wait(60)
        self.calls.append(len(tiles))
        if self.error and len(self.calls) > 1:
            raise self.error
        return np.zeros((len(tiles), 3, 256, 256), np.int16)


@pytest.fixture
def model(models):
    return open_model(models / "identity")


def running(engine, cache_bytes=2**30):
    return Generator(cache_bytes=cache_bytes, opener=lambda model, **options: engine)


def ask(generator, model, keys, gone=None):
    return generator.ask(model, [(key, TILE) for key in keys], gone or threading.Event())


def test_off_a_cpu_every_call_has_the_same_shape(model):
    engine = Recorder("cuda")
    generator = running(engine)
    futures = ask(generator, model, range(6))
    assert all(future.result(60).shape == (3, 256, 256) for future in futures)
    assert set(engine.calls) == {4}
    generator.close()


def test_a_tile_that_several_wait_for_is_run_once(model):
    engine = Recorder()
    engine.go.clear()
    generator = running(engine)
    ask(generator, model, ["first"])
    futures = [ask(generator, model, ["same"])[0] for _ in range(5)]
    engine.go.set()
    assert all(future.result(60) is futures[0].result(60) for future in futures)
    assert ask(generator, model, ["same"])[0].done()
    assert sum(engine.calls) == generator.tiles_run == 2
    generator.close()


def test_what_nobody_waits_for_is_not_run(model):
    engine = Recorder()
    engine.go.clear()
    generator = running(engine)
    ask(generator, model, ["first"])
    gone = threading.Event()
    dropped = ask(generator, model, range(50), gone)
    kept = ask(generator, model, [0])
    gone.set()
    engine.go.set()
    kept[0].result(60)
    generator.close()
    assert sum(engine.calls) <= 2 + 8  # one round may have been taken before they went
    assert dropped[-1].cancelled()


def test_live_tiles_go_before_a_download(model):
    engine = Recorder(batch_size=8)
    engine.go.clear()
    generator = running(engine)
    order = []
    ask(generator, model, ["first"])
    batch = np.stack([TILE] * 8)
    downloads = [
        threading.Thread(target=lambda: order.append(len(generator.run_batch(model, batch))))
        for _ in range(3)
    ]
    for thread in downloads:
        thread.start()
    live = ask(generator, model, ["a", "b"])
    for future in live:
        future.add_done_callback(lambda _: order.append("live"))
    engine.go.set()
    for thread in downloads:
        thread.join(60)
    generator.close()
    assert order.count("live") == 2
    assert order.index("live") <= 1  # after at most the one batch that ran already


def test_errors_come_out_where_they_are_waited_for_and_the_thread_goes_on(model):
    engine = Recorder(error=ModelError("broken"))
    generator = running(engine)
    ask(generator, model, ["good"])[0].result(60)
    with pytest.raises(ModelError, match="broken"):
        ask(generator, model, ["bad"])[0].result(60)
    with pytest.raises(ModelError, match="broken"):
        generator.run_batch(model, np.stack([TILE]))
    engine.error = None
    ask(generator, model, ["bad"])[0].result(60)
    generator.close()
    with pytest.raises(TilemapperError, match="ending"):
        ask(generator, model, ["late"])


def test_a_model_that_cannot_be_loaded_is_said_to_those_who_ask(model):
    def refuse(model, **options):
        raise ModelError("no weights")

    generator = Generator(cache_bytes=2**20, opener=refuse)
    generator.warm_up(model)
    with pytest.raises(ModelError, match="no weights"):
        ask(generator, model, ["a"])[0].result(60)
    generator.close()


def test_what_is_waited_for_is_looked_through_while_nobody_adds_to_it(model):
    """Otherwise a request at the wrong moment ends the thread, and all others wait for ever."""

    def refuse(model, **options):
        raise ModelError("no weights")

    generator = Generator(cache_bytes=2**20, opener=refuse)

    class Watched(OrderedDict):
        def items(self):
            assert generator._changed._is_owned()
            return super().items()

    generator._wanted = Watched()
    with pytest.raises(ModelError, match="no weights"):
        ask(generator, model, ["a"])[0].result(60)
    generator.close()
