"""The end of a service."""

from __future__ import annotations

import threading

from tilemapper.serve.server import _END_S


def test_the_end_takes_no_longer_than_a_signal_may(serve, monkeypatch):
    """Ten seconds, however long a batch takes that nobody can stop; closed twice, as it is."""
    waited = []
    join = threading.Thread.join

    def stuck(thread, timeout=None):
        if thread.name in ("jobs", "generator"):
            waited.append(timeout)
        else:
            join(thread, timeout)

    with serve() as (service, _):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "join", stuck)
            service.close()
            service.close()
        for part in (service.jobs, service.generator):
            join(part._thread, 30)
    assert len(waited) == 2
    assert _END_S + sum(waited) <= 10
