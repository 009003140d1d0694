"""What only a GPU shows: graphs, streams, memory that runs out. The rest is in test_block."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import noise, write_raster
from tests.render.cuda.test_block import joined, masked, on_device, on_host
from tests.render.test_block import ArrayView
from tilemapper.networks.model import open_model
from tilemapper.raster.lattice import Lattice
from tilemapper.render.block import class_rows, grey_rows
from tilemapper.render.cuda.painter import Painter, painter_of
from tilemapper.render.cuda.streams import Streams
from tilemapper.render.engine import Engine
from tilemapper.render.render import render
from tilemapper.render.seam import Seam

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def batch_of(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).cuda()


@pytest.mark.parametrize("name", ["identity", "constant", "unet", "classes"])
@pytest.mark.parametrize("holes", [0, 1])
def test_device_and_host_blend_the_same_predictions_to_the_same_bytes(models, name, holes):
    engine = Engine(open_model(models / name), device="cuda:0", batch_size=7)
    painter_of(engine)  # fixes how the libraries choose their algorithms
    colours = np.arange(9, dtype=np.int32).reshape(3, 3) * 20 if engine.is_palette else None
    view = ArrayView(noise(900, 1100).transpose(1, 2, 0), masked(900, 1100, 1, holes))
    lattice, final = Lattice(900, 1100), class_rows if engine.is_palette else grey_rows
    for block in lattice.blocks(512):
        seams = Seam(colours), Seam(colours)
        host = on_host(engine, lattice, block, view, seams[0])
        device = on_device(engine, lattice, block, view, seams[1])
        assert np.array_equal(joined(host, final), joined(device, final))
        assert seams[0] == seams[1]


def test_a_gpu_agrees_with_the_cpu(models):
    model, batch = open_model(models / "unet"), batch_of(4).cpu().numpy()
    cpu = Engine(model, batch_size=4).predict(batch)
    cuda = Engine(model, device="cuda:0", batch_size=4).predict(batch)
    assert np.abs(cpu.astype(int) - cuda).mean() < 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_is_recorded_and_gives_what_plain_calls_give(models, precision):
    engine = Engine(open_model(models / "unet"), device="cuda:0", precision=precision, batch_size=5)
    painter = Painter(engine)
    batches = [batch_of(5, seed) for seed in range(4)]
    painted, sound = zip(*[painter.paint(batch) for batch in batches], strict=True)
    assert painter._graph is not None
    with torch.inference_mode():
        plain = [engine.paint(batch)[0] for batch in batches]
    painter.streams.synchronize()
    assert all(sound)
    assert all(torch.equal(a, b) for a, b in zip(painted, plain, strict=True))


def test_a_batch_that_does_not_fit_is_halved_with_its_graph(models):
    engine = Engine(open_model(models / "unet"), device="cuda:0", batch_size=512)
    expected = Painter(Engine(open_model(models / "unet"), device="cuda:0", batch_size=8))
    batch = batch_of(512)
    painter = Painter(engine)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    # Room for the batch itself and for little more.
    room = torch.cuda.memory_allocated() + 5 * batch.numel() // 2 * 2 + 300 * 2**20
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    try:
        with pytest.warns(RuntimeWarning, match="out of memory at"):
            painted, _ = painter.paint(batch)
        painter.streams.synchronize()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert painter.fits < 512
    few, _ = expected.paint(batch[:8])
    expected.streams.synchronize()
    close = (painted[:8] - few).abs()
    assert close.float().mean() < 1  # another shape may choose another algorithm
    assert painter._graph is not None


def fail_to_record(model):
    """In a process of its own: what torch keeps of a failed recording must not reach others."""
    engine = Engine(open_model(model), device="cuda:0", batch_size=5)
    batch, expected = batch_of(5), Painter(engine)
    (plain, _), capturing, forward = expected.paint(batch), [], Painter._forward
    expected.streams.synchronize()

    def waiting(self, tiles):
        capturing.append(torch.cuda.is_current_stream_capturing())
        if capturing[-1]:
            tiles.sum().item()  # not permitted here
        return forward(self, tiles)

    Painter._forward = waiting
    painter = Painter(engine)
    with painter.streams.computing():
        before = torch.cuda.current_stream()
        painted, _ = painter.paint(batch)
        assert torch.cuda.current_stream() == before
    painter.streams.synchronize()
    assert any(capturing)
    assert painter._graph is None
    assert torch.equal(painted, plain)
    strip, before = np.zeros((3, 500, 1000), np.uint8), active_bytes()
    for _ in range(100):
        painter.streams.upload(strip)
        painter.streams.synchronize()
    assert active_bytes() - before < 20 * strip.size


def active_bytes():
    """What is allocated, and what other streams have used and torch has not taken back yet."""
    return torch.cuda.memory_stats()["active_bytes.all.current"]


def test_a_recording_that_fails_leaves_stream_and_predictions_as_they_were(models):
    program = f"from {__name__} import fail_to_record; fail_to_record({str(models / 'unet')!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_second_render_finds_the_memory_of_the_first(models, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(600, 700))
    used = []
    for _ in range(3):
        render(city, tmp_path / "map.tif", models / "unet", device="cuda", overwrite=True)
        used.append(torch.cuda.memory_allocated())
    assert used[2] <= used[1]


def test_what_comes_down_is_what_was_computed_however_much_goes_on_meanwhile():
    streams = Streams(torch.device("cuda:0"))
    downloads, expected = [], []
    for seed in range(30):
        array = np.random.default_rng(seed).integers(0, 256, (3, 400, 900), dtype=np.uint8)
        there = streams.upload(array)
        with streams.computing():
            made = 255 - there
            for _ in range(20):
                made = 255 - (255 - made)
            downloads.append(streams.download(made))
        expected.append(255 - array)
    for download, wanted in zip(downloads, expected, strict=True):
        assert np.array_equal(download.numpy(), wanted)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_process_and_two_that_share_a_gpu_write_the_same_file(models, tmp_path):
    city = write_raster(tmp_path / "city.tif", noise(1500, 1700))
    target, options = tmp_path / "map.tif", {"block": 512, "overwrite": True, "batch_size": 16}
    digests = set()
    for workers in (1, 1, 2):
        render(city, target, models / "unet", device="cuda", workers=workers, **options)
        digests.add(digest(target))
    assert len(digests) == 1
