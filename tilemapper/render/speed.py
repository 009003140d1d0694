"""How fast a generator runs on its device, from a few batches."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from tilemapper.networks.model import Model
from tilemapper.render.blocks import engine_of
from tilemapper.render.cuda.painter import Painter, painter_of
from tilemapper.render.engine import Engine
from tilemapper.render.plan import Plan

PROBES = 3
GPU_BATCHES = 20  # a GPU is through one before the clock has ticked


def tiles_a_second(plan: Plan, model: Model) -> float:
    """Tiles a second of the generator that a plan asks for, on random pixels."""
    engine = engine_of(plan, model)
    shape = (plan.batch_size, plan.tile, plan.tile, 3)
    tiles = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    painter = painter_of(engine)
    return _host_speed(engine, tiles) if painter is None else device_speed(painter, tiles)


def _host_speed(engine: Engine, tiles: np.ndarray) -> float:
    seconds = []
    with ThreadPoolExecutor(engine.lanes, initializer=engine.enter_lane) as pool:
        for _ in range(PROBES):
            begun = time.perf_counter()
            list(pool.map(engine.predict, [tiles] * engine.lanes))
            seconds.append(time.perf_counter() - begun)
    # The first batch also warms up.
    return engine.lanes * len(tiles) / min(seconds[1:])


def device_speed(painter: Painter, tiles: np.ndarray, batches: int = GPU_BATCHES) -> float:
    """Tiles a second of a painter, tiles on the device already; the clock waits for the device."""
    with painter.streams.computing():
        ready = torch.from_numpy(tiles).to(painter.device)
    painter.paint(ready)
    painter.streams.synchronize()
    begun = time.perf_counter()
    for _ in range(batches):
        painter.paint(ready)
    painter.streams.synchronize()
    return batches * len(tiles) / (time.perf_counter() - begun)
