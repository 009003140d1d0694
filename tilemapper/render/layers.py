"""From exact sums to the pixels of each output layer: map, classes, uncertainty."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tilemapper.networks.model import Model
from tilemapper.raster.blend import AXIS_ONE, LEVELS
from tilemapper.render.block import class_rows, grey_rows
from tilemapper.render.blockfile import Rows
from tilemapper.render.rows import PixelRows


def to_layers(
    rows: Iterable[PixelRows], palette: NDArray[np.uint8], wanted: Collection[str] = ()
) -> Iterator[Rows]:
    """Each layer's pixels, (bands, n, width) uint8 and 0 where masked, and what is kept.

    Args:
        rows: a block's.
        palette: colours of the classes as `palette_of` gives them, none for a model of RGB.
        wanted: layers beside the map, "classes" and "uncertainty".
    """
    for part in rows:
        layers: dict[str, NDArray[np.uint8]] = {}
        if not part.keep.any():  # nearly all of a raster of which a district is wanted
            bands = dict.fromkeys(wanted, 1) | {"map": 3}
            layers = {name: np.zeros((n, *part.keep.shape), np.uint8) for name, n in bands.items()}
            yield layers, part.keep
            continue
        if len(palette):
            classes = class_rows(part)
            layers["map"] = palette[classes].transpose(2, 0, 1) * part.keep
            if "classes" in wanted:
                layers["classes"] = (classes * part.keep)[None]
        else:
            layers["map"] = grey_rows(part)
        if "uncertainty" in wanted:
            doubt = entropy(part.totals) if len(palette) else deviation(part)
            layers["uncertainty"] = (doubt * part.keep)[None]
        yield layers, part.keep


def palette_of(model: Model) -> NDArray[np.uint8]:
    """Colours of a palette model's classes, (classes, 3) uint8; (0, 3) for a model of RGB."""
    return np.array([entry.colour for entry in model.card.palette], np.uint8).reshape(-1, 3)


def entropy(totals: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Shannon entropy of the class probabilities, 0 (certain) to 255 (all classes alike).

    Args:
        totals: (classes, n, width) int32, sums of weighted probabilities.

    Returns:
        (n, width) uint8: 255 x entropy / log(classes).
    """
    share = totals.astype(np.float32)
    share /= np.maximum(share.sum(axis=0), 1)
    logs = np.log(np.maximum(share, np.finfo(np.float32).tiny))
    bits = -(share * logs).sum(axis=0) / np.log(max(len(totals), 2))
    grey: NDArray[np.uint8] = np.rint(255 * bits).clip(0, 255).astype(np.uint8)
    return grey


def deviation(part: PixelRows) -> NDArray[np.uint8]:
    """How far the tiles that cover a pixel disagree, in grey levels, 0 where one tile does.

    The weighted standard deviation, root mean square over the bands; (n, width) uint8.
    """
    assert part.squares is not None
    whole = float(AXIS_ONE) ** 2
    mean = part.totals.astype(np.float64) / whole
    variance = part.squares / whole - (mean * mean).sum(axis=0)
    spread = np.sqrt(np.maximum(variance, 0) / len(part.totals)) / LEVELS
    grey: NDArray[np.uint8] = np.rint(spread).clip(0, 255).astype(np.uint8)
    return grey
