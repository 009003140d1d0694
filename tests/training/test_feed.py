"""The next batch is made while a step computes."""

from __future__ import annotations

import threading

import torch

from tilemapper.training.config import AugmentConfig
from tilemapper.training.feed import Feed, Group
from tilemapper.training.pixels import Pixels


def test_the_next_batch_is_made_before_it_is_asked_for_and_once(monkeypatch):
    noise = torch.randint(0, 256, (2 * 16 * 16, 3), dtype=torch.uint8)
    side = torch.tensor([16, 16])
    pixels = Pixels(noise, noise, torch.tensor([0, 256]), side, side, smallest=16)
    group = Group(0, 2, 1.0)
    feed = Feed(
        pixels, [group], AugmentConfig(crop=16), batch=2, seed=0, device=torch.device("cpu")
    )
    made, begun = [], {step: threading.Event() for step in range(4)}
    make = feed.make

    def watched(step):
        made.append((step, threading.current_thread()))
        begun[step].set()
        return make(step)

    monkeypatch.setattr(feed, "make", watched)
    first = feed(0)
    assert begun[1].wait(60)  # nobody has asked for it
    second = feed(1)
    assert begun[2].wait(60)
    feed.close()
    assert [step for step, _ in made] == [0, 1, 2]
    assert threading.current_thread() not in [thread for _, thread in made]
    torch.testing.assert_close(second.source, make(1).source, rtol=0, atol=0)
    assert not torch.equal(first.source, second.source)
