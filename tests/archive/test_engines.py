"""Engines that stay open from scene to scene."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from tilemapper.archive import engines


def test_scenes_that_come_at_once_share_one_engine(monkeypatch):
    """As on a GPU, where two are painted at a time: a second engine takes its memory once more."""
    made, prepared = [], []

    def slow(model, **_options):
        time.sleep(0.05)
        made.append(model)
        return SimpleNamespace()

    monkeypatch.setattr(engines, "open_model", lambda name: name)
    monkeypatch.setattr(engines, "engine_for", slow)
    monkeypatch.setattr(engines, "painter_of", prepared.append)
    options = dict.fromkeys(("device", "precision", "batch_size", "tta", "compiled"))
    task = SimpleNamespace(model="one that no other test has", options=options)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engines._engine_for, [task] * 4))
    engines._engine.cache_clear()
    assert len(made) == 1
    assert all(engine is found[0] for engine in (*found, *prepared))
