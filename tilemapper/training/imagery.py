"""How light, sensors, optics and compression vary imagery that is the source, on the device."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from tilemapper.training.config import AugmentConfig

# Bands of YCbCr from RGB (ITU-T T.871), levels 0 to 255; the offset of 128 falls out again.
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
# How coarsely JPEG at quality 50 keeps frequency u + v of a block: about the means of the tables
# of ITU-T T.81, annex K, along their diagonals, smoothed; for brightness and for colour.
COARSENESS = (
    (16, 12, 13, 16, 22, 31, 44, 60, 68, 78, 85, 95, 103, 103, 99),
    (17, 18, 23, 40, 80, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99),
)


def numbers_drawn(config: AugmentConfig) -> int:
    """How many numbers are drawn for an image.

    Of brightness, contrast, three casts, noise, blur, compression; and of gamma and saturation
    where the job asks for them, so that one without them draws what it always did.
    """
    return 8 + bool(config.gamma) + bool(config.saturation)


def vary_imagery(x: Tensor, drawn: Tensor, config: AugmentConfig) -> Tensor:
    """Varies imagery (n, 3, h, w) in [-1, 1] by a draw (n, `numbers_drawn`) in [-1, 1].

    What is returned stays in that range. The draw is on the host, where its numbers can be looked
    at without waiting for the device.
    """
    if config.blur:
        x = blur(x, config.blur * drawn[:, 6].abs())
    drawn = drawn.to(x.device, non_blocking=True)
    if config.gamma:
        x = _gamma(x, 2 ** (config.gamma * drawn[:, 8, None, None, None]))
    if config.saturation:
        x = _saturate(x, 2 ** (config.saturation * drawn[:, -1, None, None, None]))
    x = _tone(x, drawn[:, :6, None, None], config)
    if config.jpeg_quality < 100:
        x = compress(x, 100 - (100 - config.jpeg_quality) * drawn[:, 7].abs())
    return x


def _gamma(x: Tensor, exponent: Tensor) -> Tensor:
    return ((x + 1) / 2).clamp_(0, 1).pow(exponent) * 2 - 1


def _saturate(x: Tensor, factor: Tensor) -> Tensor:
    """Moves colours towards the grey of their own brightness, or away from it."""
    red, green, blue = x.unbind(1)
    weights = YCC[0]
    grey = (weights[0] * red + weights[1] * green + weights[2] * blue)[:, None]
    return torch.lerp(grey, x, factor).clamp_(-1, 1)


def _tone(x: Tensor, drawn: Tensor, config: AugmentConfig) -> Tensor:
    if not any((config.brightness, config.contrast, config.cast, config.noise)):
        return x
    x = x * (1 + config.contrast * drawn[:, 1:2])
    # The full range of [-1, 1] is 2 wide.
    x = x + 2 * (config.brightness * drawn[:, :1] + config.cast * drawn[:, 2:5])
    if config.noise:
        x = x + 2 * config.noise * drawn[:, 5:].abs() * torch.randn_like(x)
    return x.clamp(-1, 1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (n, 3, h, w) by (n,) standard deviations in pixels, edges repeated.

    ``sigma`` is on the host: it decides how many neighbours are looked at.
    """
    n, bands, height, width = x.shape
    radius = max(1, math.ceil(3 * float(sigma.max())))
    at = torch.arange(-radius, radius + 1)
    taps = torch.exp(-at.square() / (2 * sigma[:, None].square() + 1e-6))
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(bands, 0)  # (n * bands, taps)
    taps = taps.to(x.device, non_blocking=True)
    flat = functional.pad(x.reshape(1, n * bands, height, width), (radius,) * 4, mode="replicate")
    flat = functional.conv2d(flat, taps[:, None, :, None], groups=n * bands)
    flat = functional.conv2d(flat, taps[:, None, None, :], groups=n * bands)
    return flat.view(n, bands, height, width)


def compress(x: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of (n,) qualities 1 to 100 leaves of (n, 3, h, w) in [-1, 1].

    Colour is kept at full resolution (4:4:4), and the phase of the 8 x 8 blocks is that of the
    patch.
    """
    n, _, height, width = x.shape
    gaps = (0, -width % 8, 0, -height % 8)
    levels = functional.pad(x, gaps, mode="replicate") * 127.5
    ycc, rgb, cosines, coarse = (t.to(x.device, non_blocking=True) for t in _tables())
    blocks = torch.einsum("dc,nchw->ndhw", ycc, levels)
    blocks = blocks.reshape(n, 3, levels.shape[2] // 8, 8, levels.shape[3] // 8, 8)
    found = torch.einsum("ia,ncxayb,jb->ncxiyj", cosines, blocks, cosines)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(n, 1, 1, 1, 1, 1)
    step = (coarse[None, :, None, :, None, :] * scale).clamp(min=1)
    found = torch.round(found / step) * step
    blocks = torch.einsum("ia,ncxiyj,jb->ncxayb", cosines, found, cosines)
    image = torch.einsum("cd,ndhw->nchw", rgb, blocks.reshape(levels.shape))
    return (image[:, :, :height, :width] / 127.5).clamp(-1, 1)


@functools.cache
def _tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """YCbCr from RGB (3, 3), and back; cosines of a block (8, 8); steps at quality 50 (3, 8, 8).

    On the host: there inverting a matrix makes nobody wait for a device.
    """
    at = torch.arange(8)
    cosines = torch.cos(math.pi * at[:, None] * (2 * at + 1) / 16) / 2
    cosines[0] /= math.sqrt(2)
    steps = torch.tensor(COARSENESS, dtype=torch.float32)[:, at[:, None] + at]
    ycc = torch.tensor(YCC)
    return ycc, torch.linalg.inv(ycc), cosines, steps[[0, 1, 1]]
