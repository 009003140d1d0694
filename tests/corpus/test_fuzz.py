"""Mutated bytes through everything that opens a file: one of our errors, or nothing at all."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
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
from tilemapper.render.journal import Receipt, read_journal
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


def _model(folder: Path, name: str) -> bytes:
    return (model_folders.sound(folder / "m").folder / name).read_bytes()


def _image(folder: Path) -> bytes:
    training_sets.pair(folder / "pair.png", 1)
    return (folder / "pair.png").read_bytes()


def _npz(_folder: Path) -> bytes:
    stream = io.BytesIO()
    pixels = np.zeros((3, 32, 32, 3), np.uint8)
    np.savez(stream, A=pixels, B=pixels)
    return stream.getvalue()


def _journal(_folder: Path) -> bytes:
    receipt = Receipt("a", {"a": "b"}, {"map": "c"}, True, False)
    body = json.dumps(dataclasses.asdict(receipt)).encode()
    whole = b"%08x %s\n" % (zlib.crc32(body), body)
    other = b'{"disagreement": [0, 0], "of": "another version"}'
    return whole * 2 + b"%08x %s\n" % (zlib.crc32(other), other)


def _safetensors(path: Path) -> None:
    unpack_weights(path.read_bytes(), name=str(path))


# File name, what makes sound bytes, and what opens them.
OPENERS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "TIFF": ("a.tif", lambda folder: tiff(PIXELS), _raster),
    "tiled BigTIFF": ("a.tif", lambda folder: tiff(PIXELS, BIG), _raster),
    "model card": ("model.toml", lambda folder: _model(folder, "model.toml"), _card),
    "safetensors": ("w", lambda folder: _model(folder, "generator.safetensors"), _safetensors),
    "checkpoint": ("g.pth", lambda folder: checkpoints.saved({"a": torch.ones(9)}), read_state),
    "archive job": ("job.toml", lambda folder: job_files.ARCHIVE.encode(), load_archive),
    "training job": ("job.toml", lambda folder: job_files.TRAINING.encode(), _training),
    "image of a pair": ("0.png", _image, _pairs),
    "npz of pairs": ("a.npz", _npz, _pairs),
    "journal": ("journal", _journal, read_journal),
    "ledger": ("ledger.sqlite", _ledger_bytes, _ledger),
}


def fuzz(folder: Path, name: str, examples: int) -> int:
    """Opens mutated bytes; how many there were. Whatever is no error of ours is raised."""
    file, make, opener = OPENERS[name]
    good = make(folder)
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


@pytest.mark.parametrize("name", OPENERS)
def test_mutated_bytes_raise_nothing_but_errors_of_ours(tmp_path: Path, name: str):
    assert fuzz(tmp_path, name, 10) >= 5


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPENERS)
def test_mutated_bytes_by_the_thousand(tmp_path: Path, name: str):
    tried = 0
    try:
        tried = fuzz(tmp_path, name, 2000)
    finally:
        count(f"mutated bytes: {name}", tried, int(not tried), "one of our errors, or none")
    assert tried >= 1000
