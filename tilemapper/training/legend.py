"""The legend of the maps that models are judged on: which class the colour of a pixel means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Legend:
    """Names and colours of the classes, in the order of their indices.

    A name may occur twice, such as two greens of parks: metrics take them as one class.
    At most 40 classes.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        # float32 holds integers to 2**24, and `nearest` needs 2 * 3 * 255**2 for each class.
        if not 0 < len(self.colours) <= 40 or len(self.names) != len(self.colours):
            raise ValueError(f"{len(self.names)} names, {len(self.colours)} colours; 1 to 40 fit")

    def indices(self, name: str) -> list[int]:
        """The classes of a name; empty when there is none."""
        return [i for i, found in enumerate(self.names) if found == name]

    def nearest(self, image: Tensor) -> Tensor:
        """Class of the nearest colour (Euclidean in RGB), uint8 (..., 3) -> int64 (...)."""
        red, green, blue = (plane.float() for plane in image.unbind(-1))
        count = len(self.colours)
        best = torch.full_like(red, torch.inf)
        for k, (r, g, b) in enumerate(self.colours):
            # |p - c|^2 without |p|^2, which does not change the order; the class itself rides in
            # the remainder, so that one minimum finds both. Integers, exact in float32.
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
MAPS_LEGEND = Legend(tuple(name for name, _ in _MAPS), tuple(colour for _, colour in _MAPS))
