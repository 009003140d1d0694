"""Counts the palette of a set of maps: the colours that they are drawn in, most frequent first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tilemapper.errors import OptionError, PairError
from tilemapper.networks.model import PaletteClass
from tilemapper.training.agreement import MOST_CLASSES
from tilemapper.training.classes import FARTHEST
from tilemapper.training.heldout import spread
from tilemapper.training.jobtext import toml_value
from tilemapper.training.pairs import PairSource

# Enough for the share of a class of a thousandth to two digits; 4 bytes each are kept.
SAMPLED_PIXELS = 8_000_000
# A class is a peak among the colours within 6 levels of it: what JPEG makes of one colour lies
# closer, and colours that maps tell apart lie farther (the nearest two of Google's are 8 apart).
PEAK_CELLS = 3
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class CountedPalette:
    """Classes and their shares of the maps' pixels; ``far``: the share that is near no class."""

    classes: tuple[PaletteClass, ...]
    shares: tuple[float, ...]
    far: float
    pairs: int

    def job_text(self, data: str) -> str:
        """A job file to go over a preset: the palette, and a figure that it has."""
        lines = [
            f"# The colours of {data}, counted on {self.pairs} of its maps; {self.far:.1%} of the",
            "# pixels are near none of them (labels, soft edges). Name classes that have no name:",
            "# `road` is judged as lines. Then: tilemapper train ... --preset fast --config FILE",
            'kind = "training"',
            "",
            "[trainer]",
            'best_by = "mean_iou"',
        ]
        for entry, share in zip(self.classes, self.shares, strict=True):
            name, colour = toml_value(entry.name), toml_value(entry.colour)
            lines += ["", "[[palette]]", f"name = {name}  # {share:.2%} of the pixels"]
            lines += [f"colour = {colour}"]
        return "\n".join(lines) + "\n"


def count_palette(
    source: PairSource,
    *,
    classes: int = 16,
    least_share: float = 0.001,
    pairs: int = 200,
    like: Sequence[PaletteClass] = (),
    on_pair: Callable[[], object] = lambda: None,
) -> CountedPalette:
    """The colours that the targets of pairs are drawn in.

    A class's colour is the median, band by band, of the pixels that are nearest to it: what
    compression and soft edges make of one colour scatters around it, seldom evenly (white has
    nothing above it), and the median is the colour that is off by least on average.

    Args:
        source: the pairs.
        classes: at most so many.
        least_share: of the pixels, that a colour needs to be a class.
        pairs: how many are looked at, evenly spread.
        like: classes whose names and order are kept, and whose colours alone are counted anew;
            ``classes`` and ``least_share`` do not matter then.
        on_pair: called after each pair.

    Raises:
        OptionError: the least share is none.
        PairError: a pair is damaged, or fewer than two colours are frequent enough.
    """
    if not 0 <= least_share <= 1:
        raise OptionError(f"min_share: {least_share} found, 0 to 1 is needed; 0.001 is usual")
    chosen = spread(range(len(source)), pairs)
    each = max(1, SAMPLED_PIXELS // max(1, len(chosen)))
    samples = []
    for index in chosen:
        pixels = source.load(index)[1].reshape(-1, 3)
        # Every k-th pixel, k odd: with an even one only some columns of most images are seen.
        samples.append(pixels[:: (len(pixels) // each) | 1])
        on_pair()
    sampled = torch.from_numpy(np.concatenate(samples))
    exact, cells = _histogram(sampled, bits=8), _histogram(sampled, bits=7)
    if like:
        return _counted(
            [entry.name for entry in like],
            _medians(exact, [entry.colour for entry in like]),
            cells,
            len(chosen),
        )
    found = _peaks(exact, cells, most=min(4 * classes, MOST_CLASSES))
    shares, _ = _shares(cells, found)
    # What a dropped colour had goes to its neighbours, and may lift them over the least share.
    while len(found) > classes or shares.min(initial=1) < least_share:
        found.pop(int(shares.argmin()))
        shares, _ = _shares(cells, found)
    if len(found) < 2:
        raise PairError(
            f"{len(found)} colours that {least_share:.2%} of the maps' pixels have found, two are "
            "needed; lower --min-share, or train photographs with --set networks.head=rgb"
        )
    by_share = [found[k] for k in np.argsort(-shares, kind="stable")]
    names = [f"class_{place}" for place in range(1, len(found) + 1)]
    return _counted(names, _medians(exact, by_share), cells, len(chosen))


def _counted(names: list[str], colours: list[Colour], cells: Tensor, pairs: int) -> CountedPalette:
    shares, far = _shares(cells, colours)
    return CountedPalette(
        classes=tuple(
            PaletteClass(name=name, colour=colour)
            for name, colour in zip(names, colours, strict=True)
        ),
        shares=tuple(shares.tolist()),
        far=far,
        pairs=pairs,
    )


def _histogram(pixels: Tensor, *, bits: int) -> Tensor:
    """Counts by the first ``bits`` bits of each band: (n, 3) uint8 -> (2**bits,) * 3 int64."""
    red, green, blue = (pixels >> (8 - bits)).int().unbind(1)
    index = (red << (2 * bits)) + (green << bits) + blue
    return torch.bincount(index, minlength=2 ** (3 * bits)).view([2**bits] * 3)


def _peaks(exact: Tensor, cells: Tensor, *, most: int) -> list[Colour]:
    """The colours that are more frequent than all near them.

    Args:
        exact: pixels of each colour, (256, 256, 256).
        cells: pixels of each 2 x 2 x 2 colours, (128, 128, 128).
        most: how many colours, the most frequent ones.
    """
    own = cells.double()[None, None]
    # The cell itself counts once more, so that of equal sums around one colour its own is largest.
    mass = 27 * functional.avg_pool3d(own, 3, stride=1, padding=1) + own
    best = mass
    for side in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):  # one after another: a sixteenth of the cube
        best = functional.max_pool3d(
            best,
            kernel_size=[1 + 2 * PEAK_CELLS * k for k in side],
            stride=1,
            padding=[PEAK_CELLS * k for k in side],
        )
    places = ((mass == best) & (own > 0))[0, 0].nonzero()
    order = mass[0, 0][tuple(places.T)].argsort(descending=True, stable=True)
    chosen: list[Colour] = []
    for place in places[order].tolist():
        # The cell's surroundings, (6, 6, 6) levels or less at the ends, and their mode.
        low = [max(0, 2 * k - 2) for k in place]
        here = exact[tuple(slice(k, 2 * p + 4) for k, p in zip(low, place, strict=True))]
        mode = np.unravel_index(int(here.argmax()), here.shape)
        r, g, b = (int(k + m) for k, m in zip(low, mode, strict=True))
        apart = [max(abs(r - x), abs(g - y), abs(b - z)) for x, y, z in chosen]
        if min(apart, default=255) > 2 * PEAK_CELLS - 2:
            chosen.append((r, g, b))
        if len(chosen) == most:
            break
    return chosen


def _medians(exact: Tensor, colours: list[Colour]) -> list[Colour]:
    """Band by band the median of the pixels near each colour, none nearer; its own where none is.

    Args:
        exact: pixels of each colour, (256, 256, 256).
        colours: the classes.
    """
    places = exact.nonzero()
    weights = exact[tuple(places.T)]
    places = places.short()
    nearest, known = _nearest(places, colours)
    medians = []
    for k, colour in enumerate(colours):
        own = known & (nearest == k)
        bands = (torch.bincount(band.int(), weights[own], minlength=256) for band in places[own].T)
        medians.append(tuple(map(_median, bands)) if own.any() else colour)
    return [(r, g, b) for r, g, b in medians]


def _median(counts: Tensor) -> int:
    """The lower median of 256 levels that occur so often each."""
    below = counts.cumsum(0)
    return int((below < below[-1] / 2).sum())


def _nearest(levels: Tensor, colours: list[Colour]) -> tuple[Tensor, Tensor]:
    """Index of the nearest colour by its largest band, and whether it is near; (n, 3) -> (n,)."""
    apart = (levels[:, None] - torch.tensor(colours, dtype=torch.int16)).abs().amax(2).min(1)
    return apart.indices, apart.values <= FARTHEST


def _shares(cells: Tensor, colours: list[Colour]) -> tuple[NDArray[np.float64], float]:
    """Of the pixels: those that are near each colour, none nearer; and those near none."""
    if not colours:
        return np.zeros(0), 1.0
    places = cells.nonzero()
    # The middle of a cell, as `ClassColours` takes them.
    nearest, known = _nearest(2 * places.short() + 1, colours)
    weights = cells[tuple(places.T)].double() / cells.sum()
    counted = torch.bincount(nearest[known], weights[known], minlength=len(colours))
    return counted.numpy(), float(weights[~known].sum())
