"""One input of the corpus and what has to become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.conftest import noise

HEIGHT, WIDTH = 70, 90
PIXELS = noise(HEIGHT, WIDTH, seed=8)
REFUSED = "refused"  # exit 1, one line, nothing written
AS_READ = "as read"  # exit 0, and the pixels that GDAL's TIFF driver reads of that header


@dataclass(frozen=True)
class Place:
    """Where a case is made, and what it may try to reach."""

    folder: Path
    canary: Path
    canary_raster: Path
    ran: Path
    url: str


@dataclass(frozen=True)
class Right:
    """The pixels that have to come out: (3, height, width), and where they are valid."""

    pixels: NDArray[Any]
    valid: NDArray[np.bool_] | None = None
    tolerance: int = 0


Outcome = str | Right
SAME = Right(PIXELS)


@dataclass(frozen=True)
class Case:
    """An input named ``source`` in the place's folder. ``make`` writes it, and what lies beside.

    outcome: `REFUSED`, `AS_READ`, or the right pixels. says: a word of the error line. options:
    of ``render``.
    """

    name: str
    make: bytes | Callable[[Place], None]
    outcome: Outcome = REFUSED
    says: str = ""
    options: tuple[str, ...] = ()
    source: str = "scene.tif"
    notes: dict[str, Any] = field(default_factory=dict)

    def write(self, place: Place) -> Path:
        """Makes the input; the path of the source."""
        path = place.folder / self.source
        if isinstance(self.make, bytes):
            path.write_bytes(self.make)
        else:
            self.make(place)
        return path


def late(build: Callable[[], bytes]) -> Callable[[Place], None]:
    """Bytes of a case that take long to build: built for those who write it, not for who asks."""

    def make(place: Place) -> None:
        (place.folder / "scene.tif").write_bytes(build())

    return make
