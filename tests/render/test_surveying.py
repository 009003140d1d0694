"""What a cluster's workers are asked before a plan is made."""

from __future__ import annotations

import time

from tests.render.test_messenger import FakeClient
from tilemapper.render.cluster.surveying import ask_all


class Deaf(FakeClient):
    """Its workers never answer."""

    def submit(self, *arguments, **options):
        return self

    is_done = False

    def done(self):
        return self.is_done

    def result(self, timeout=None):
        raise TimeoutError


def test_a_worker_that_is_lost_while_it_is_asked_is_not_waited_for():
    begun = time.monotonic()
    assert ask_all(Deaf({}), ["tcp://lost"], len, until_s=begun + 60) == ({}, {})
    assert time.monotonic() - begun < 30


def test_a_worker_whose_own_disk_does_not_answer_is_not_asked_again_and_again(monkeypatch):
    """What it raises is called as what says that it takes long."""
    monkeypatch.setattr(Deaf, "is_done", True)
    here = {"tcp://slow": {"status": "running", "resources": {}}}
    begun = time.monotonic()
    assert ask_all(Deaf(here), here, len, until_s=begun + 60) == ({}, {})
    assert time.monotonic() - begun < 30
