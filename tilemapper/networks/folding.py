"""Folding of what is fixed after training into the convolutions: same function, fewer steps.

Frozen BatchNorm becomes the convolution's weights and bias. A resize-convolution (nearest
neighbour, then 3x3) becomes one transposed 4x4 convolution: 4/9 of the arithmetic, and no
enlarged copy of its input.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from tilemapper.networks.layers import ConvNorm

# Data-parallel training puts the second in the place of the first.
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy in eval mode, BatchNorms (running statistics) and resizing in the convolutions.

    Exact up to the rounding of the network's dtype; computed in float64. Instance norms depend
    on the image and stay. The given network is not changed.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, _BATCH_NORMS):
            _fold(module, module.norm)
        if isinstance(module, ConvNorm) and module.resize:
            _merge_resize(module)
    return folded


@torch.no_grad()
def _fold(module: ConvNorm, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> None:
    conv = module.conv
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    before = 0.0 if conv.bias is None else conv.bias.double()
    bias = (before - norm.running_mean.double()) * scale
    if norm.affine:
        bias = bias + norm.bias.double()
    # A transposed convolution has its output channels in the second place.
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter((conv.weight.double() * scale.view(shape)).to(dtype))
    conv.bias = nn.Parameter(bias.to(dtype))
    module.norm = nn.Identity()


# Row i: which of the three taps fall on one input pixel, seen from tap i of the 4-tap kernel.
_MERGED_TAPS = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))


@torch.no_grad()
def _merge_resize(module: ConvNorm) -> None:
    """Doubling by nearest neighbour and then 3x3 taps, as taps on the pixels before doubling."""
    conv = module.conv
    assert isinstance(conv, nn.Conv2d)
    weight = conv.weight.double()
    taps = weight.new_tensor(_MERGED_TAPS)
    merged = nn.ConvTranspose2d(
        conv.in_channels, conv.out_channels, 4, 2, 1, bias=conv.bias is not None, device="meta"
    )
    kernel = torch.einsum("ia,jb,ocab->coij", taps, taps, weight)
    merged.weight = nn.Parameter(kernel.to(conv.weight.dtype))
    if conv.bias is not None:
        merged.bias = nn.Parameter(conv.bias.clone())
    module.conv = merged.eval()
    module.resize = False
