"""How much of a map each class of its model covers, counted by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassShare:
    """One class of a palette: its name and colour, and its share of the valid pixels."""

    name: str
    colour: Colour
    share: float


class ClassTally:
    """Counts pixels by the colours of a palette, window by window."""

    def __init__(self, palette: Sequence[tuple[str, Colour]]) -> None:
        self._palette = list(palette)
        self._others = len(self._palette)
        # An entry for each colour there is: a look-up is ten times faster than finding the nearest.
        # Of one byte where that will do: other colours are one class more than the palette's.
        small = np.uint8 if self._others < 256 else np.uint16
        self._table = np.full(1 << 24, self._others, small)
        for index, (_, colour) in reversed(list(enumerate(self._palette))):
            self._table[_key(np.array(colour, np.uint32))] = index
        self._counts = np.zeros(self._others + 1, np.int64)
        self._seen = 0

    def add(self, rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
        """Counts the valid pixels of (h, w, 3) uint8."""
        classes = self._table[_key(rgb[valid])]
        self._counts += np.bincount(classes, minlength=self._others + 1)
        self._seen += valid.size

    @property
    def valid(self) -> float:
        """The share of all pixels seen that are valid, and so were counted."""
        return int(self._counts.sum()) / max(1, self._seen)

    def shares(self) -> list[ClassShare]:
        """Each class's share, the palette's order; colours of no class come last, if any."""
        total = max(1, int(self._counts.sum()))
        found = [
            ClassShare(name, colour, count / total)
            for (name, colour), count in zip(self._palette, self._counts.tolist(), strict=False)
        ]
        if self._counts[-1]:
            found.append(ClassShare("other colours", (128, 128, 128), self._counts[-1] / total))
        return found


def _key(colours: NDArray[np.integer]) -> NDArray[np.uint32]:
    """(..., 3) as one number each."""
    wide = colours.astype(np.uint32)
    key: NDArray[np.uint32] = wide @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return key
