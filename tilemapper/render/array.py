"""Rendering an image in memory, on the same lattice and blend as a raster on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.networks.model import Model
from tilemapper.raster.blend import TOP
from tilemapper.raster.lattice import Block, Lattice, overlap_for
from tilemapper.render.block import blend_rows, class_rows, grey_rows, predict_rows
from tilemapper.render.engine import Engine, open_engine
from tilemapper.render.layers import palette_of
from tilemapper.render.rows import PixelRows
from tilemapper.render.strips import read_tile_rows


@dataclass
class RenderedArray:
    """A map in memory: ``rgb`` (h, w, 3) uint8; ``classes`` (h, w) uint8 for palette models."""

    rgb: NDArray[np.uint8]
    classes: NDArray[np.uint8] | None
    expected: NDArray[np.uint8] | None = None


class _ArrayView:
    """An array in memory as a source view: every pixel valid, none unwanted."""

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        self._rgb = rgb

    def read(
        self, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return self._rgb[row : row + height, col : col + width], np.ones((height, width), bool)

    def wanted(self, **_window: int) -> None:
        return None


def render_array(
    rgb: NDArray[np.uint8],
    model: Model | Engine,
    *,
    overlap: int | None = None,
    device: str = "auto",
) -> RenderedArray:
    """Renders an image in memory on the same lattice and blend as a raster on disk.

    Args:
        rgb: (height, width, 3) uint8 at the model's ground sampling distance.
        model: an opened model, or an `Engine` that is to be used again and again.
        overlap: pixels that neighbouring tiles share, 0 to 128, a multiple of 32; 64 by default,
            or what a smaller tile allows.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; not used with an `Engine`.
    """
    engine = model if isinstance(model, Engine) else open_engine(model, device=device)
    tile = engine.model.card.tile
    lattice = Lattice(rgb.shape[0], rgb.shape[1], overlap_for(tile, overlap), tile)
    block = Block(0, 0, *rgb.shape[:2])
    rows = read_tile_rows(_ArrayView(rgb), lattice, block, mean=(0, 0, 0))
    finished = blend_rows(predict_rows(rows, engine), lattice, block, lent=True)
    if not engine.is_palette:
        image = np.concatenate([grey_rows(part) for part in finished], axis=1)
        return RenderedArray(np.ascontiguousarray(image.transpose(1, 2, 0)), None)
    palette = palette_of(engine.model)
    pairs = [(class_rows(part), _expected_colour(part, palette)) for part in finished]
    classes = np.concatenate([found for found, _ in pairs])
    return RenderedArray(palette[classes], classes, np.concatenate([mean for _, mean in pairs]))


def _expected_colour(part: PixelRows, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of the palette weighted by the class probabilities, (rows, width, 3) uint8."""
    shares = part.totals / (TOP * 2.0**20)
    expected = np.einsum("khw,kc->hwc", shares, palette.astype(float))
    expected /= np.maximum(shares.sum(axis=0), 1e-9)[..., None]
    rounded: NDArray[np.uint8] = np.rint(expected).astype(np.uint8)
    return rounded
