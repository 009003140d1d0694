"""Mutated bytes through everything that opens a file: one of our errors, or nothing at all."""

from __future__ import annotations

import contextlib
import json
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.corpus import checkpoints, job_files, model_folders, training_sets
from tests.corpus.case import PIXELS
from tests.corpus.tiff import Layout, tiff
from tests.faults.table import count
from tilemapper.archive.jobfile import load_job as load_archive
from tilemapper.archive.ledger import Ledger
from tilemapper.errors import TilemapperError
from tilemapper.networks.importers import read_state
from tilemapper.networks.model import open_model
from tilemapper.networks.weights import unpack_weights
from tilemapper.raster.source import SourceOptions, SourceView, inspect_source
from tilemapper.render.journal import read_journal
from tilemapper.training.jobfile import load_job as load_training
from tilemapper.training.pairs import open_pairs

pytestmark = pytest.mark.filterwarnings("ignore")


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some overwritten, cut out, doubled, or cut off."""
    places = st.integers(0, max(0, len(good) - 1))
    change = st.tuples(places, st.sampled_from("oicd"), st.binary(min_size=1, max_size=8))

    def apply(changes: list[tuple[int, str, bytes]]) -> bytes:
        data = good
        for at, how, new in changes:
            behind = {"o": data[at + len(new) :], "i": data[at:], "c": b"", "d": data[at + 8 :]}
            data = data[:at] + (b"" if how == "d" else new) + behind[how]
        return data

    return st.lists(change, min_size=1, max_size=6).map(apply)


def _raster(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = inspect_source(str(path), SourceOptions(), 0.5)
        if spec.height * spec.width <= 10**6:
            with SourceView(spec) as view:
                view.read(row=0, col=0, height=min(64, view.height), width=min(64, view.width))


BIG = Layout(big=True, tile=(32, 32), deflate=True)


def _training(path: Path) -> None:
    load_training(config=path)


def _card(path: Path) -> None:
    open_model(path.parent)


def _pairs(path: Path) -> None:
    source = open_pairs(path if path.suffix == ".npz" else path.parent)
    source.load(0)


def _ledger(path: Path) -> None:
    with Ledger(path, read_only=True) as ledger:
        ledger.rows()


def _ledger_bytes(folder: Path) -> bytes:
    path = folder / "made.sqlite"
    with contextlib.suppress(TilemapperError):
        Ledger(path).close()
    return path.read_bytes()


def openers(folder: Path) -> dict[str, tuple[str, bytes, Callable[[Path], object]]]:
    """File name, sound bytes, and what opens them."""
    model = model_folders.sound(folder / "m").folder
    card = (model / "model.toml").read_bytes()
    weights = (model / "generator.safetensors").read_bytes()
    body = json.dumps({"block": "a", "files": {}, "disagreement": [0, 0]}).encode()
    journal = b"%08x %s\n" % (zlib.crc32(body), body)
    training_sets.pair(folder / "pair.png", 1)
    npz = training_sets._arrays()["of other counts"]
    return {
        "TIFF": ("a.tif", tiff(PIXELS), _raster),
        "tiled BigTIFF": ("a.tif", tiff(PIXELS, BIG), _raster),
        "model card": ("model.toml", card, _card),
        "safetensors": ("w", weights, lambda path: unpack_weights(path.read_bytes(), name="w")),
        "checkpoint": ("g.pth", checkpoints.saved({"a": checkpoints.torch.zeros(9)}), read_state),
        "archive job": ("job.toml", job_files.ARCHIVE.encode(), load_archive),
        "training job": ("job.toml", job_files.TRAINING.encode(), _training),
        "image of a pair": ("0.png", (folder / "pair.png").read_bytes(), _pairs),
        "npz of pairs": ("a.npz", npz, _pairs),
        "journal": ("journal", journal * 3, read_journal),
        "ledger": ("ledger.sqlite", _ledger_bytes(folder), _ledger),
    }  # fmt: skip


def fuzz(folder: Path, name: str, examples: int) -> int:
    """Opens mutated bytes; how many there were. Whatever is no error of ours is raised."""
    file, good, opener = openers(folder)[name]
    place = folder / "place"
    place.mkdir()
    tried = 0

    @settings(
        max_examples=examples, database=None, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutated(good))
    def once(data: bytes) -> None:
        nonlocal tried
        tried += 1
        (place / file).write_bytes(data)
        with contextlib.suppress(TilemapperError):
            opener(place / file)

    once()
    return tried


NAMES = (
    "TIFF", "tiled BigTIFF", "model card", "safetensors", "checkpoint", "archive job",
    "training job", "image of a pair", "npz of pairs", "journal", "ledger",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_mutated_bytes_raise_nothing_but_errors_of_ours(tmp_path: Path, name: str):
    assert fuzz(tmp_path, name, 20) >= 10


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_mutated_bytes_by_the_thousand(tmp_path: Path, name: str):
    tried = 0
    try:
        tried = fuzz(tmp_path, name, 2000)
    finally:
        count(f"mutated bytes: {name}", tried, int(not tried), "one of our errors, or none")
    assert tried >= 1000
