"""One fork server, one listener and one set of canaries for all of the corpus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.corpus.forks import Forks, Listener, listening


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs commands in forks."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def listener() -> Iterator[Listener]:
    """Counts connections."""
    with listening() as counting:
        yield counting
