"""The legend of the maps that models are judged on: which class the colour of a pixel means."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tilemapper.networks.model import PaletteClass

# A colour counted anew on other maps of a style lies so near; the nearest two of the `maps` set
# that are told apart are 8 levels apart.
_SAME_COLOUR = 4
# float32 holds integers to 2**24, and `Legend.nearest` needs 2 * 3 * 255**2 for each class.
_EXACT_IN_FLOAT32 = 40


@dataclass(frozen=True)
class Legend:
    """Names and colours of the classes, in the order of their indices.

    A name may occur twice, such as two greens of parks: metrics take them as one class.
    ``judged``: the names that have figures of their own; by default all.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    judged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.colours or len(self.names) != len(self.colours):
            raise ValueError(f"{len(self.names)} names, {len(self.colours)} colours; one each fits")
        object.__setattr__(self, "judged", self.judged or tuple(dict.fromkeys(self.names)))

    def indices(self, name: str) -> list[int]:
        """The classes of a name; empty when there is none."""
        return [i for i, found in enumerate(self.names) if found == name]

    def nearest(self, image: Tensor) -> Tensor:
        """Class of the nearest colour (Euclidean in RGB), uint8 (..., 3) -> int64 (...)."""
        count = len(self.colours)
        exact = torch.float32 if count <= _EXACT_IN_FLOAT32 else torch.float64
        red, green, blue = (plane.to(exact) for plane in image.unbind(-1))
        best = torch.full_like(red, torch.inf)
        for k, (r, g, b) in enumerate(self.colours):
            # |p - c|^2 without |p|^2, which does not change the order; the class itself rides in
            # the remainder, so that one minimum finds both. Integers, and exact.
            key = (r * r + g * g + b * b) * count + k - 2.0 * r * count * red
            key.add_(green, alpha=-2.0 * g * count).add_(blue, alpha=-2.0 * b * count)
            torch.minimum(best, key, out=best)
        return best.long() % count


# Counted on the training images of the `maps` data set, most frequent first; the share of
# pixels within 8 levels of each falls from 39 % (land) to 0.9 % (motorway) and less.
_MAPS = (
    ("land", (232, 228, 224)),
    ("building", (244, 240, 236)),
    ("water", (177, 209, 255)),
    ("grey", (224, 220, 212)),
    ("park", (203, 223, 171)),
    ("road", (255, 255, 255)),
    ("outline", (212, 212, 208)),
    ("park", (196, 220, 160)),
    ("forest", (188, 212, 188)),
    ("sand", (240, 228, 208)),
    ("motorway", (252, 160, 36)),
    ("ochre", (232, 220, 188)),
    ("airport", (212, 200, 188)),
    ("hospital", (236, 208, 208)),
)
MAPS_LEGEND = Legend(
    tuple(name for name, _ in _MAPS),
    tuple(colour for _, colour in _MAPS),
    judged=("road", "water", "park", "motorway"),
)


def legend_of(palette: Sequence[PaletteClass]) -> Legend:
    """The legend that maps in the colours of a palette are judged by.

    That of the `maps` set for palettes that have its roads, water, parks and motorways (within 4
    levels), and where there is no palette; else the palette's own classes, their names as words
    of a figure.
    """
    theirs = zip(MAPS_LEGEND.names, MAPS_LEGEND.colours, strict=True)
    judged = [colour for name, colour in theirs if name in MAPS_LEGEND.judged]
    if not palette or all(any(_same(entry.colour, c) for entry in palette) for c in judged):
        return MAPS_LEGEND
    words = _words([entry.name for entry in palette])
    names = tuple(words[entry.name] for entry in palette)
    return Legend(names, tuple(entry.colour for entry in palette))


def _words(names: Sequence[str]) -> dict[str, str]:
    """A word of a figure for each name, no two names with one: classes would be counted as one.

    "mean" is "mean_class", since mean_iou is that of all classes; what only case or signs tell
    apart is numbered.
    """
    plain = {name: _word(name) for name in names}
    words: dict[str, str] = {}
    # What is a word already keeps it.
    for name in sorted(plain, key=lambda name: plain[name] != name):
        word = plain[name]
        numbered = itertools.chain([word], (f"{word}_{count}" for count in itertools.count(2)))
        words[name] = next(one for one in numbered if one not in words.values())
    return words


def _word(name: str) -> str:
    word = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", name)).strip("_").lower()
    return "mean_class" if word == "mean" else word or "class"


def _same(first: tuple[int, int, int], second: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) <= _SAME_COLOUR
