"""How alike two images are pixel by pixel: PSNR, SSIM, and the protocol of GcGAN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The cap keeps means finite when an image is reproduced exactly.
LARGEST_PSNR_DB = 100.0
PROTOCOL_SIZE = 256
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, at most 100; (n, 3, h, w) in 0..255 -> (n,)."""
    error = (predicted.float() - truth.float()).square().mean((1, 2, 3)).double()
    return (10 * torch.log10(255.0**2 / error)).clamp(max=LARGEST_PSNR_DB)


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of Wang et al. 2004 on RGB; (n, 3, h, w) in 0..255 -> (n,).

    Gaussian window 11x11, sigma 1.5, K1 .01, K2 .03, range 255, edges reflected, mean over all
    positions and channels. Equals torchmetrics' (a test says so), which convolves
    in two dimensions and takes many times as long. NaN for images below 11 px.
    """
    n, channels, height, width = predicted.shape
    if min(height, width) < SSIM_WINDOW:
        return torch.full((n,), torch.nan, dtype=torch.float64)
    x, y = (v.float().reshape(-1, height, width) for v in (predicted, truth))
    maps = torch.cat([x, y, x * x, y * y, x * y])
    down, across = (_window_matrix(side, maps.device) for side in (height, width))
    maps = down @ maps @ across.T
    mean_x, mean_y, xx, yy, xy = maps.view(5, n * channels, *maps.shape[1:])
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    likeness = (2 * product + SSIM_C1) * (2 * (xy - product) + SSIM_C2)
    likeness /= (squares + SSIM_C1) * (xx + yy - squares + SSIM_C2)
    scores: Tensor = likeness.reshape(n, -1).double().mean(1)
    return scores


def _window_matrix(side: int, device: torch.device) -> Tensor:
    """The window as a matrix, (side, side), edges reflected: a matmul beats a convolution."""
    reach = SSIM_WINDOW // 2
    offsets = torch.arange(-reach, reach + 1, device=device)
    taper = torch.exp(-(offsets.float() ** 2) / (2 * SSIM_SIGMA**2))
    taper /= taper.sum()
    columns = (torch.arange(side, device=device)[:, None] + offsets).abs()  # reflects at 0
    columns = side - 1 - (side - 1 - columns).abs()  # and at the far edge
    matrix = torch.zeros(side, side, device=device)
    return matrix.scatter_add_(1, columns, taper.expand(side, -1).contiguous())


def resize_without_antialias(images: Tensor, size: int = PROTOCOL_SIZE) -> Tensor:
    """Square bilinear resize as in the protocol of GcGAN; (n, 3, h, w) uint8 -> (n, 3, s, s)."""
    if images.shape[2:] == (size, size):
        return images
    resized = F.interpolate(
        images.float(), (size, size), mode="bilinear", align_corners=False, antialias=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


def gcgan_protocol(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """acc5, acc10 (0 to 1) and rmse_gcgan (grey levels) of GcGAN; (n, 3, h, w) uint8 -> (n,).

    Both images are resized to 256 without antialias; acc@d is the share of pixels whose largest
    channel difference is below d; RMSE is sqrt(3 x mean squared error).
    """
    predicted, truth = resize_without_antialias(predicted), resize_without_antialias(truth)
    difference = predicted.float() - truth.float()
    largest = difference.abs().amax(1)
    return {
        "acc5": (largest < 5).double().mean((1, 2)),
        "acc10": (largest < 10).double().mean((1, 2)),
        "rmse_gcgan": (3 * difference.square().double().mean((1, 2, 3))).sqrt(),
    }
