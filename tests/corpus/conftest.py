"""One listener for all of the corpus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.corpus.forks import Listener, listening


@pytest.fixture(scope="session")
def listener() -> Iterator[Listener]:
    """Counts connections."""
    with listening() as counting:
        yield counting
