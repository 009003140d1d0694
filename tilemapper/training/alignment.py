"""Whether a map lies on its satellite image: correlation of edges over shifts, turns and flips.

Colours of the two have nothing in common, but streets and shores run the same way in both. So
the directions of the edges are compared, doubled, that a dark street on light land and a light
one on dark land agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilemapper.training.images import RgbImage

# Edges are compared at this size: fine enough for streets, coarse enough to be fast.
LARGEST_SIDE = 128
# Turns and flips of the map: quarter turns, then whether mirrored left to right.
TURNS = {
    (0, False): "", (0, True): "mirrored left to right", (2, True): "mirrored top to bottom",
    (1, False): "turned by 90 degrees", (2, False): "turned by 180 degrees",
    (3, False): "turned by 270 degrees", (1, True): "mirrored along a diagonal",
    (3, True): "mirrored along a diagonal",
}  # fmt: skip
# In reduced pixels: what counts as lying on each other.
TOLERANCE = 2
# Shares of the side: shifts beyond this are not looked for, since too little overlaps.
FARTHEST_SHIFT = 0.25


@dataclass(frozen=True)
class Alignment:
    """How well the edges agree, in standard deviations over all shifts.

    ``here``: as the pair lies. ``shifted``: at the best other shift, ``shift`` (down, right) in
    pixels of the image. ``turned``: at the best turn or flip of the map, ``turn`` in words.
    """

    here: float
    shifted: float
    shift: tuple[int, int]
    turned: float
    turn: str


def edge_alignment(source: RgbImage, target: RgbImage) -> Alignment:
    """Compares the edges of two images of one size, (h, w, 3) uint8."""
    factor = max(1.0, max(source.shape[:2]) / LARGEST_SIDE)
    first, second = (_grey(image, factor) for image in (source, target))
    square = first.shape[0] == first.shape[1]
    turns = [turn for turn in TURNS if square or turn[0] % 2 == 0]
    variants = [torch.rot90(second.flip(1) if m else second, q, (0, 1)) for q, m in turns]
    fields = _edges(torch.stack([first, *variants]))
    spectra = torch.fft.fft2(fields)
    surfaces = torch.fft.ifft2(spectra[:1] * spectra[1:].conj()).real  # (turns, h, w)
    surfaces = surfaces / surfaces.std((1, 2), keepdim=True).clamp(min=1e-9)
    near, far = _masks(*first.shape)
    here = float(surfaces[0][near].max())
    beyond = surfaces[0].masked_fill(~far, -torch.inf)
    at = int(beyond.argmax())
    row, col = divmod(at, beyond.shape[1])
    shift = [v - n if v > n // 2 else v for v, n in zip((row, col), beyond.shape, strict=True)]
    turned = surfaces[1:, near].amax(1)
    best = int(turned.argmax())
    return Alignment(
        here=here,
        shifted=float(beyond.max()),
        shift=(round(-shift[0] * factor), round(-shift[1] * factor)),
        turned=float(turned[best]),
        turn=TURNS[turns[1 + best]],
    )


def _grey(image: RgbImage, factor: float) -> Tensor:
    grey = torch.from_numpy(image.astype(np.float32).mean(2))
    if factor == 1.0:
        return grey
    size = [max(1, round(side / factor)) for side in grey.shape]
    return F.interpolate(grey[None, None], size, mode="bilinear", antialias=True)[0, 0]


def _edges(images: Tensor) -> Tensor:
    """Doubled edge directions times the root of their strength, (n, h, w) -> complex, tapered."""
    x = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    across, down = x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    gradient = torch.complex(across, down)[:, 0]
    strength = gradient.abs().clamp(min=1e-6)
    # The root keeps a few hard edges (roofs) from outweighing all streets.
    field = gradient**2 / strength**1.5
    height, width = field.shape[1:]
    field = field - field.mean((1, 2), keepdim=True)
    taper = torch.hann_window(height + 2)[1:-1, None] * torch.hann_window(width + 2)[1:-1]
    tapered: Tensor = field * taper**0.5
    return tapered


def _masks(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Shifts that count as none, and shifts that count as misaligned, (h, w) bool each."""
    down, across = (torch.minimum(torch.arange(n), n - torch.arange(n)) for n in (height, width))
    away = torch.maximum(down[:, None], across)
    inside = (down[:, None] <= height * FARTHEST_SHIFT) & (across <= width * FARTHEST_SHIFT)
    return away <= TOLERANCE, (away > TOLERANCE) & inside
